"""Where `qemu-img check` and our checker disagree over wrecked images, by class: docs/reference/check.md explains each.

    python bench/check_agreement.py [IMAGES] [--tell]

Both judge the same files. A verdict is one of: refused (not opened), corrupt, leaks (and nothing worse), clean.
"""

import argparse
import json
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from snapcheck.impl.qcow2 import ImageError, inspect
from snapcheck.stateful_tests.phases.images import WreckedImage, wrecked_image


def verdict_here(image: WreckedImage) -> tuple[str, str]:
    """Return our verdict, and the first thing that is wrong."""
    try:
        report = inspect(image.file)
    except ImageError as error:
        return "refused", str(error)
    verdict = "corrupt" if report.corruptions else "leaks" if report.leaks else "clean"
    return verdict, report.problems[0] if report.problems else ""


def verdict_there(image: WreckedImage, path: Path) -> tuple[str, str]:
    """Return QEMU's verdict, and what it said first."""
    path.write_bytes(image.file.pread(0, image.file.size()))
    command = ("qemu-img", "check", "-f", "qcow2", "--output=json", path)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    said = (done.stderr.splitlines() or [""])[0]
    if not done.stdout.startswith("{"):
        return "refused", said
    found = json.loads(done.stdout)
    if found.get("check-errors"):
        return "refused", said
    return "corrupt" if found.get("corruptions") else "leaks" if found.get("leaks") else "clean", said


def main() -> None:
    """Judge the images, and print how often the verdicts meet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="?", type=int, default=2000)
    parser.add_argument("--tell", action="store_true", help="one line for each disagreement")
    options = parser.parse_args()
    classes: Counter[tuple[str, str]] = Counter()
    fields: dict[tuple[str, str], Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.images):
            image = wrecked_image(Random(f"agreement {number}"))  # noqa: S311  # chance for a bench, no secret
            ours, theirs = verdict_here(image), verdict_there(image, Path(folder) / "image.qcow2")
            pair = ours[0], theirs[0]
            classes[pair] += 1
            if pair[0] != pair[1]:
                fields.setdefault(pair, Counter())[" + ".join(image.words)] += 1
                if options.tell:
                    print(f"{number}: {image.kind}: {' + '.join(image.words)}\n  ours   {ours}\n  theirs {theirs}")
    same = sum(count for (ours, theirs), count in classes.items() if ours == theirs)
    print(f"{options.images} wrecked images: {same} verdicts are the same ({same / options.images:.1%})")
    for (ours, theirs), count in classes.most_common():
        common = fields.get((ours, theirs), Counter()).most_common(8)
        print(f"  ours {ours:<8} theirs {theirs:<8} {count:>5}  {', '.join(f'{f} {n}' for f, n in common)}")


if __name__ == "__main__":
    main()
