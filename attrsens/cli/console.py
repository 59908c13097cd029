"""What a person sees: data on stdout, all else on stderr."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from attrsens.errors import AttrsensError, OutputError

Progress = Callable[[int, int, int], None]
EVERY = 30.0  # seconds between plain progress lines


def out(text: str, end: str = "\n") -> None:
    """Data on stdout. A reader that left early is no error.

    Raises:
        OutputError: stdout cannot be written, for any other reason.
    """
    if sys.stdout is not None:
        _print(_visible(text), end)


def row(*fields: str) -> None:
    """One line of data on stdout, a tab between fields; no name in it starts another line or field, nor a command of
    GitHub's, which reads stdout too."""
    line = "\t".join(re.sub(r"[\t\n\v\f\r]+", " ", field) for field in fields)
    out(_no_command(line))


def _print(text: str, end: str = "\n") -> None:
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        silence()
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"stdout cannot be written ({error.strerror})") from None


def colourful() -> bool:
    """Whether stdout takes colours: NO_COLOR forbids them, FORCE_COLOR wants them, else a terminal has them."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def painted(cells: Iterable[tuple[str, tuple[int, int, int] | None]]) -> None:
    """A line of data, of texts with the colour behind each."""
    if sys.stdout is None or not colourful():
        out("".join(text for text, _ in cells))
        return
    line = ""
    for text, colour in cells:
        if colour is None:
            line += _visible(text)
            continue
        r, g, b = (round(c / 51) for c in colour)  # the 6 x 6 x 6 cube of 256 colours
        ink = 232 if sum(colour) > 330 else 255
        line += f"\x1b[38;5;{ink};48;5;{16 + 36 * r + 6 * g + b}m{_visible(text)}\x1b[0m"
    _print(line)


def write_json(data: object, where: str) -> None:
    """JSON to a file, or to stdout for "-"."""
    import msgspec

    from attrsens.render import write_file

    check_file(where)
    encoded = msgspec.json.format(msgspec.json.encode(data), indent=1) + b"\n"
    if where == "-":
        out(encoded.decode(), end="")
    else:
        write_file(Path(where), encoded)


def silence() -> None:
    """Say nothing further to stdout, so that what is left in its buffer troubles nobody."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def error(text: str) -> None:
    """One line on stderr: line breaks inside become spaces, control characters question marks."""
    note("attrsens: " + " ".join(text.split()))


def note(text: str) -> None:
    """A line about what is going on, on stderr."""
    if sys.stderr is not None:
        line = re.sub(r"[\n\v\f\r]+", " ", text)
        print(_visible(_no_command(line)), file=sys.stderr)


def _no_command(text: str) -> str:
    """Where a name has `##[`, GitHub would see a command in the log."""
    return text.replace("##[", "## [") if os.environ.get("GITHUB_ACTIONS") else text


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def check_file(path: str | None) -> None:
    """Raise, before any work, if a file that was asked for cannot be made.

    Raises:
        AttrsensError: its folder does not exist, or it is a folder itself.
    """
    if path and path != "-" and (not Path(path).parent.is_dir() or Path(path).is_dir()):
        raise AttrsensError(f"{path} cannot be written: {'a folder' if Path(path).is_dir() else 'no such folder'}")


def check_folder(path: Path) -> None:
    """Raise, before any work, if a folder that was asked for is something else.

    Raises:
        AttrsensError: a file of that name is in the way.
    """
    if path.exists() and not path.is_dir():
        raise AttrsensError(f"out: {path} cannot be written (Not a directory); choose another --out")


def set_up_logging(quiet: bool, verbose: bool) -> None:
    """Library messages to stderr: warnings always, downloads and the like unless quiet."""
    logger = logging.getLogger("attrsens")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("attrsens: %(message)s"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


def on_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


@contextmanager
def progress(silent: bool, what: str) -> Iterator[Progress | None]:
    """A bar on a terminal; elsewhere a plain line every 30 seconds; nothing when silent."""
    if silent:
        yield None
        return
    if not on_terminal():
        yield _plain(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def step(done: int, total: int, passes: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{what}, {passes} passes")

        yield step


@contextmanager
def only_data() -> Iterator[None]:
    """While active, what others print (a user's own network, say) goes to stderr: stdout is for data."""
    with redirect_stdout(sys.stderr if sys.stderr is not None else io.StringIO()):
        yield


def steps(what: str, silent: bool) -> Callable[[str], None]:
    """Told of every step: on a terminal each is a line; elsewhere one every 30 seconds; nothing when silent."""
    last = time.monotonic()

    def step(name: str) -> None:
        nonlocal last
        if not silent and (on_terminal() or time.monotonic() - last >= EVERY):
            last = time.monotonic()
            note(f"{what}: {name}")

    return step


def _plain(what: str) -> Progress:
    last = time.monotonic()

    def step(done: int, total: int, passes: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            note(f"{what}: {done} of {total} images, {passes} passes")

    return step
