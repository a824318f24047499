"""What an option means when it is left out."""

from pathlib import Path
from typing import Final

REPORT_FOLDER: Final = Path("snapcheck-report")
