"""Errors that a user can act on. Every message says what is wrong, with which thing, and what would do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class AttrsensError(Exception):
    """A mistake in what was asked for: usage, names, values, models. Nothing has been computed yet."""

    exit_code = 2
    report: Any = None  # what was finished, where work had begun


class InputError(AttrsensError):
    """One image or one cell failed; the others go on."""

    exit_code = 3


class OutputError(AttrsensError):
    """Results could not be written."""

    exit_code = 4


class NothingFound(AttrsensError):
    """A directory or a pattern matched no image."""

    exit_code = 5


def told(error: Exception) -> str:
    """What an exception says, in one line; one that nobody foresaw with its type.

    >>> told(ZeroDivisionError("first line\\nsecond line")), told(InputError("broken.png: no image"))
    ('internal error: ZeroDivisionError: first line', 'broken.png: no image')
    """
    if isinstance(error, AttrsensError):
        return str(error)
    first = (str(error).splitlines() or [""])[0][:200]
    return f"internal error: {type(error).__name__}: {first}".removesuffix(": ")


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> AttrsensError:
    """The error for a name that does not exist: the nearest one, then what exists.

    >>> str(unknown("method", "gs", ["grad", "sg"]))
    "unknown method 'gs'; did you mean 'sg'? methods: grad, sg"
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.45)
    near.sort(key=lambda n: sorted(n) != sorted(name))  # letters swapped is the likeliest slip
    suggestion = f" did you mean {near[0]!r}?" if near else ""
    listing = hint or f"{kind}s: {', '.join(names) or 'none'}"
    return AttrsensError(f"unknown {kind} {name!r};{suggestion} {listing}")
