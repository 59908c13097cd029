"""Decoding ahead: while the network looks at some pictures, a thread reads the next."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from threading import Event, Thread

from attrsens.engine.inputs import Source
from attrsens.errors import InputError, told
from attrsens.images import Image

log = logging.getLogger("attrsens")

Loaded = list[Image | InputError]


class Reading:
    """A few pictures on their way into memory.

    The thread is a daemon: a disk that hangs keeps nobody from leaving.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources, self._stopped = sources, Event()
        self._loaded: Loaded = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="attrsens-reading", daemon=True)
        self._thread.start()

    def result(self) -> Loaded:
        """Every picture, or why there is none; waits for the thread."""
        self._thread.join()
        if self._error:
            raise self._error
        return self._loaded

    def stop(self) -> None:
        """No further picture is read; the one that is being read is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            for source in self._sources:
                if self._stopped.is_set():
                    return
                self._loaded.append(read(source))
        except BaseException as error:  # handed on to who waits
            self._error = error


def read(source: Source) -> Image | InputError:
    """The decoded picture, or why there is none: one that fails, in whatever way, does not stop the others."""
    try:
        return source.load()
    except InputError as error:
        return error
    except Exception as error:
        log.debug("%s", source.name, exc_info=True)
        return InputError(f"{source.name}: {told(error)}")


def windows(sources: Sequence[Source], size: int) -> Iterator[tuple[Sequence[Source], Loaded]]:
    """The sources, `size` at a time, with their pictures: those of one window are looked at while the next one's, and
    none after, are read."""
    starts = range(0, len(sources), size)
    reading = [Reading(sources[start : start + size]) for start in starts[:1]]
    try:
        for start in starts:
            loaded = reading[0].result()
            reading = [Reading(sources[after : after + size]) for after in (start + size,) if after in starts]
            yield sources[start : start + size], loaded
    finally:
        for one in reading:
            one.stop()
