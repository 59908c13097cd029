"""The command line. Everything below it raises; here errors become one line and an exit code."""

from __future__ import annotations

import faulthandler
import functools
import gc
import io
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from typer.exceptions import TyperException

from attrsens.cli import attack, cache, compare, console, doctor, explain, listing, score, sweep, train
from attrsens.errors import AttrsensError, OutputError

app = typer.Typer(
    name="attrsens",
    help="How far can an image classifier's explanation be trusted?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _interruptible(command: Callable[..., Any]) -> Callable[..., Any]:
    """Ctrl-C anywhere in the command: one line and exit code 130 (typer alone would say nothing)."""

    @functools.wraps(command)
    def wrapper(*args: Any, **values: Any) -> Any:
        try:
            return command(*args, **values)
        except KeyboardInterrupt:
            console.error("interrupted")
            return 130

    return wrapper


app.command("explain")(_interruptible(explain.explain))
app.command("sweep")(_interruptible(sweep.sweep))
app.command("compare")(_interruptible(compare.compare))
app.command("attack")(_interruptible(attack.attack))
app.command("score")(_interruptible(score.score))
app.command("train")(_interruptible(train.train))
app.command("doctor")(_interruptible(doctor.doctor))
app.command("list")(_interruptible(listing.listing))
app.add_typer(cache.app, name="cache")


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        console.out(f"attrsens {version('attrsens')}")
        raise typer.Exit


@app.callback()
def common(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """How far can an image classifier's explanation be trusted?"""


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    gc.disable()  # until the work begins: importing torch makes a million objects that all stay
    if sys.stderr is not None:
        faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run with these arguments; returns the exit code. Errors go to stderr as one line."""
    try:
        result: Any = app(args, prog_name="attrsens", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except AttrsensError as error:
        return _fail(args, error.exit_code, str(error))
    except TyperException as error:
        message = error.format_message()
        return _fail(args, 2, message) if message else 2  # without: help was shown
    except typer.Abort:
        return _fail(args, 130, "interrupted")
    except SystemExit as exit:  # typer leaves with 1 on a closed pipe, which is no failed gate
        return exit.code if isinstance(exit.code, int) and exit.code != 1 else 0
    except OSError as error:
        console.silence()
        if isinstance(error, BrokenPipeError):
            return 0
        what = error.filename or "stdout"
        return _fail(args, OutputError.exit_code, f"{what} cannot be written ({error.strerror})")
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        return _fail(args, 4, f"internal error: {type(error).__name__}: {first}; --debug shows where")


def _fail(args: list[str], code: int, message: str) -> int:
    if "--debug" in args:
        traceback.print_exc()
    console.error(message)
    return code
