"""`snapcheck report`: the pages of a report, drawn again."""

from pathlib import Path

from snapcheck.cli.errors import CallError
from snapcheck.cli.say import say
from snapcheck.reports import folder as report_folder
from snapcheck.reports.jsonl import HistoryError
from snapcheck.reports.result_json import ResultError


def report_command(folder: Path) -> int:
    """Draw report.html and junit.xml from what the folder holds."""
    try:
        report_folder.render(folder, report_folder.read(folder))
    except (HistoryError, ResultError) as error:
        raise CallError(f"{error}; give the folder of a run that came to its end") from None
    except OSError as error:
        raise CallError(f"{folder}: can not write there: {error.strerror or error}") from None
    say(f"{folder / report_folder.PAGE} and {report_folder.JUNIT} are drawn again")
    return 0
