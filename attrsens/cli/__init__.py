"""The command line. Everything below it raises; here errors become one line and an exit code."""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
from typing import Any, NoReturn

import typer
from typer.exceptions import TyperException

from attrsens.cli import cache, console, explain, listing
from attrsens.errors import AttrsensError, OutputError

app = typer.Typer(
    name="attrsens",
    help="How far can an image classifier's explanation be trusted?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("explain")(explain.explain)
app.command("list")(listing.listing)
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
    faulthandler.enable()
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        code = _closed(code)
    sys.exit(code)


def run(args: list[str]) -> int:
    """Run with these arguments; returns the exit code. Errors go to stderr as one line."""
    debug = "--debug" in args
    try:
        result: Any = app(args, prog_name="attrsens", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except AttrsensError as error:
        if debug:
            traceback.print_exc()
        console.error(str(error))
        return error.exit_code
    except TyperException as error:
        console.error(error.format_message())
        return 2
    except SystemExit as exit:  # typer leaves with 1 on a closed pipe, which is no failed gate
        return 0 if exit.code in (None, 0, 1) else int(exit.code) if isinstance(exit.code, int) else 2
    except (KeyboardInterrupt, typer.Abort):
        console.error("interrupted")
        return 130
    except BrokenPipeError:
        return _closed(0)
    except Exception as error:
        if debug:
            traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        console.error(f"internal error: {type(error).__name__}: {first}; --debug shows where")
        return OutputError.exit_code


def _closed(code: int) -> int:
    """Nobody reads stdout any more (or its disk is full): say nothing further to it."""
    error = sys.exc_info()[1]
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return code
    console.error(f"stdout cannot be written ({getattr(error, 'strerror', error)})")
    return OutputError.exit_code
