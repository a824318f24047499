"""The command line: which commands and options there are. What a command does lives in the module of its name.

Modules are imported by the command that needs them: `snapcheck --help` must not wait for numpy.
"""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Final, cast

import typer
from snapcheck.cli.defaults import REPORT_FOLDER
from snapcheck.cli.errors import UNKNOWN, WRONG_CALL, CallError
from snapcheck.cli.say import complain, say
from snapcheck.model.setup import Semantics

INTERRUPTED: Final = 130
TRACEBACK: Final = "SNAPCHECK_TRACEBACK"

app = typer.Typer(
    name="snapcheck",
    help="Check what a block driver's snapshots promise, on several devices, under faults.\n\n"
    "Exit status: 0 passed, 1 violations, 2 the call or an input was wrong, 3 unknown.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: the decorated one costs a tenth of a second
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[Path, typer.Option(metavar="DIR", help="The folder of the report.")]


def main() -> int:
    """Run the command line and return the exit status; whatever goes wrong is told in a line or two."""
    try:
        return _run()
    except CallError as error:
        complain(str(error))
        return error.status
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except OSError as error:
        return _broken_pipe() if error.errno == errno.EPIPE else _bug(error)
    except Exception as error:  # noqa: BLE001  # the last resort: people get a line, not a traceback
        return _bug(error)


def _run() -> int:
    try:
        return cast("int | None", app(prog_name="snapcheck", standalone_mode=False)) or 0
    except Exception as error:
        words = getattr(error, "format_message", None)  # typer may bring its own copy of click, so no class to name
        if words is None:
            raise
        complain(f"{words()}\nTry: {_help_command(error)}")
        return WRONG_CALL


def _help_command(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'snapcheck'} --help"


def _broken_pipe() -> int:
    """Whoever read the output has gone: say nothing more, nor let the interpreter try at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _bug(error: Exception) -> int:
    if os.environ.get(TRACEBACK):
        raise error
    what = next(iter(str(error).splitlines()), "")
    complain(f"internal error: {type(error).__name__}: {what}\nThis is a bug of snapcheck; {TRACEBACK}=1 shows where.")
    return UNKNOWN


def _version(asked: bool) -> None:  # noqa: FBT001  # how typer calls it
    if asked:
        from importlib.metadata import version

        say(f"snapcheck {version('snapcheck')}")
        raise typer.Exit


@app.callback()
def _front(
    context: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which one.")
    ] = False,
) -> None:
    del version  # its callback has answered
    if context.invoked_subcommand is None:
        say(context.get_help())
        raise typer.Exit(WRONG_CALL)


# --- verifying ------------------------------------------------------------------------------------
@app.command()
def run(
    driver: Annotated[str, typer.Argument(metavar="[DRIVER]", help="qcow2, or package.module:attribute.")] = "qcow2",
    *,
    phases: Annotated[str | None, typer.Option(metavar="A,B", help="Only these phases; all by default.")] = None,
    profile: Annotated[str, typer.Option(metavar="quick|default|deep", help="How long to look.")] = "default",
    seconds: Annotated[float | None, typer.Option(metavar="N", help="Stop after so many seconds.")] = None,
    histories: Annotated[int | None, typer.Option(metavar="N", help="Exactly so many histories.")] = None,
    devices: Annotated[int, typer.Option(metavar="N", help="Devices of a group, 1 to 8.")] = 3,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same histories.")] = 0,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Processes; all cores by default.")] = None,
    semantics: Annotated[Semantics | None, typer.Option(help="Whose behaviour is right; classic by default.")] = None,
    qemu: Annotated[Path | None, typer.Option(metavar="DIR", help="Where QEMU's programs are; else PATH.")] = None,
    known: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Known, accepted divergences.")] = None,
    shrink_seconds: Annotated[float, typer.Option(metavar="N", help="For one violation; 0: do not shrink.")] = 10.0,
    corpus: Annotated[Path | None, typer.Option(metavar="DIR", help="Failures to replay first, and to keep.")] = None,
    out: Out = REPORT_FOLDER,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was broken off.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="The verdict and what is wrong, no more.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar, no lines in between.")] = False,
    findings: Annotated[Path | None, typer.Option(metavar="DIR", help="A page of each violation.")] = None,
) -> int:
    """Verify a driver: all phases, one report."""
    from snapcheck.cli.run import RunCall, run_command, use_qemu

    use_qemu(qemu)
    call = RunCall(
        driver=driver, phases=phases, profile=profile, seconds=seconds, histories=histories, devices=devices,
        seed=seed, jobs=jobs, semantics=semantics, known=known, corpus=corpus, resume=resume, out=out, quiet=quiet,
        shrink_seconds=shrink_seconds, findings=findings, progress=not (quiet or no_progress),
    )  # fmt: skip
    return run_command(call)


@app.command()
def explore(
    *,
    devices: Annotated[int, typer.Option(metavar="N", help="Devices of the group, 1 to 8.")] = 2,
    names: Annotated[int, typer.Option(metavar="N", help="Names that snapshots can have.")] = 2,
    values: Annotated[int, typer.Option(metavar="N", help="Values that a device can hold.")] = 2,
    snapshots: Annotated[int, typer.Option(metavar="N", help="Snapshots on one device at most.")] = 2,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="One device may have a name twice.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help="The order of the devices does not count.")] = False,
    against: Annotated[str | None, typer.Option(metavar="DRIVER", help="Drive this driver through all of it.")] = None,
    semantics: Annotated[Semantics, typer.Option(help="Whose behaviour is right.")] = Semantics.CLASSIC,
    out: Out = REPORT_FOLDER,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="The verdict and what is wrong, no more.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar, no lines in between.")] = False,
) -> int:
    """Explore the model: every state, every transition.

    With --against, a driver is driven through all of it.
    """
    from snapcheck.cli.explore import ExploreCall, explore_command

    call = ExploreCall(
        devices=devices, names=names, values=values, snapshots=snapshots, duplicates=duplicates, merge=merge,
        against=against,
        semantics=semantics, out=out, quiet=quiet, progress=not (quiet or no_progress),
    )  # fmt: skip
    return explore_command(call)


@app.command()
def replay(
    what: Annotated[str, typer.Argument(metavar="FILE|ID", help="repro/ID.py, history.jsonl, or a violation's id.")],
    *,
    driver: Annotated[str | None, typer.Option(metavar="DRIVER", help="On this driver, not the recorded one.")] = None,
    out: Out = REPORT_FOLDER,
    shrink: Annotated[bool, typer.Option("--shrink", help="Shrink the violation further; the report changes.")] = False,
    seconds: Annotated[float | None, typer.Option(metavar="N", help="How long to shrink (60).")] = None,
) -> int:
    """Run a recorded history again.

    It says FIXED, STILL FAILS, CANNOT RUN or CAN NOT TELL.
    """
    from snapcheck.cli.replay import replay_command

    if not shrink:
        if seconds is not None:
            raise CallError("--seconds goes with --shrink: a replay takes as long as it takes")
        return replay_command(what, driver=driver, out=out)
    if driver is not None:
        raise CallError("--shrink works on the driver of the report; leave --driver out")
    from snapcheck.cli.shrink import SECONDS_DEFAULT, shrink_command

    return shrink_command(what, out=out, seconds=SECONDS_DEFAULT if seconds is None else seconds)


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a report.")]) -> int:
    """Draw the pages of a report again.

    It reads result.json and history.jsonl, and writes report.html and junit.xml.
    """
    from snapcheck.cli.report import report_command

    return report_command(folder)


@app.command()
def crash(
    *,
    log: Annotated[list[Path], typer.Option(metavar="FILE", help="A dm-log-writes log; once for each device.")],
    base: Annotated[list[Path], typer.Option(metavar="IMAGE", help="The qcow2 image that the log began on.")],
    persistence: Annotated[
        str | None, typer.Option(metavar="A,B", help="What media promise; prefix,epoch,sector-torn by default.")
    ] = None,
    lost: Annotated[str, typer.Option(metavar="WHAT", help="What lost sectors hold: old, zero or garbage.")] = "old",
    bound: Annotated[int, typer.Option(metavar="N", help="States of an epoch before only some are drawn.")] = 32768,
    seed: Annotated[int, typer.Option(metavar="N", help="Which are drawn then.")] = 0,
    out: Out = REPORT_FOLDER,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="The verdict and what is wrong, no more.")] = False,
) -> int:
    """Judge write logs for every power cut.

    The logs are those of QEMU's blklogwrites or of Linux's dm-log-writes, each with the image that it began on.
    """
    from snapcheck.cli.crash import CrashCall, crash_command

    call = CrashCall(
        logs=log, bases=base, persistence=persistence, lost=lost, bound=bound, seed=seed, out=out, quiet=quiet
    )
    return crash_command(call)


# --- images and drivers ---------------------------------------------------------------------------
@app.command()
def check(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A qcow2 image; without --repair it is only read.")],
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be; copy the image first.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Check, draw and repair a qcow2 image."""
    from snapcheck.cli.check import check_command

    return check_command(image, as_json=as_json, repairs=repair)


@app.command()
def drivers() -> int:
    """Say which drivers there are.

    And what each can do, and what is missing to use it.
    """
    from snapcheck.cli.drivers import drivers_command

    return drivers_command()


@app.command("new-driver")
def new_driver(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the module, and of the new folder.")],
) -> int:
    """Write a driver to start from.

    It works at once, and has a test and a CI workflow.
    """
    from snapcheck.cli.new_driver import new_driver_command

    return new_driver_command(name)


# --- the harness itself ---------------------------------------------------------------------------
@app.command()
def bugs(
    *,
    only: Annotated[str | None, typer.Option(metavar="A,B", help="Only these: names, rows or subjects.")] = None,
    profile: Annotated[str, typer.Option(metavar="quick|default|deep", help="How long to look.")] = "default",
    seconds: Annotated[float | None, typer.Option(metavar="N", help="The budget of each bug instead.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same histories.")] = 0,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Processes; all cores by default.")] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Hypothesis alone, and uniform random.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="A folder for scoreboard.json and junit.xml.")] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress bar, no lines in between.")] = False,
) -> int:
    """Hunt the seeded bugs.

    It says which are found, how fast, and by which phase. Exit status 0 when all are, 1 when some are not.
    """
    from snapcheck.cli.bugs import BugsCall, bugs_command

    call = BugsCall(
        only=only, seconds=seconds, profile=profile, jobs=jobs, seed=seed, baselines=baselines, as_json=as_json,
        out=out, progress=not no_progress,
    )  # fmt: skip
    return bugs_command(call)
