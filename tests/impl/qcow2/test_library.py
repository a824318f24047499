"""The example of docs/how-to/qcow2-library.md does what it says."""

import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "qcow2-library.md"


def test_the_example_of_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    example = PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    command = (sys.executable, "-W", "error", "-c", example)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 before\n"
