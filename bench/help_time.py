"""How long `snapcheck --help` takes, as a whole process, beside a Python that does nothing: wanted are 0.3 s at most.

Nearly all of it is Python's start and typer; numpy, Hypothesis and the rest are imported when a command needs them.
Run it: `python bench/help_time.py`.
"""

import subprocess
import sys
import time
from statistics import median

ROUNDS = 9
WANTED_SECONDS = 0.3


def seconds_of(*arguments: str) -> float:
    """Return the wall-clock seconds of one run of Python with these arguments."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    """Print both times and their ratio."""
    rounds = [(seconds_of("-m", "snapcheck.cli", "--help"), seconds_of("-c", "")) for _ in range(ROUNDS)]
    mine, bare = median(a for a, _ in rounds), median(b for _, b in rounds)
    print(f"snapcheck --help: {mine:.3f} s (wanted: at most {WANTED_SECONDS})")
    print(f"python -c '':     {bare:.3f} s, ratio {median(a / b for a, b in rounds):.1f}")


if __name__ == "__main__":
    main()
