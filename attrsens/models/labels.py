"""Class names: named sets and files, and from a user's word to a class index."""

from __future__ import annotations

import csv
import difflib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from attrsens.errors import AttrsensError, InputError
from attrsens.images import read_bytes

NAMED = ("imagenet", "cifar10", "mnist")


@dataclass(frozen=True)
class Labels:
    """Class names in order of index; `wnids` are ImageNet's synset ids where there are any."""

    names: tuple[str, ...]
    wnids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def index(self, word: str, what: str = "target") -> int:
        """The class that an index, a name or a synset id means; case does not count.

        Raises:
            AttrsensError: unknown (the nearest names are given), out of range, or shared by several classes.
        """
        return find_class(word, len(self.names), self.names, self.wnids, what)


def find_class(word: str, count: int, names: tuple[str, ...], wnids: tuple[str, ...], what: str) -> int:
    """As `Labels.index`, for a classifier that may have no names."""
    if re.fullmatch("-?[0-9]{1,9}", word):
        if not 0 <= int(word) < count:
            raise AttrsensError(f"{what} {word} is out of range: classes are 0 to {count - 1}")
        return int(word)
    if word in wnids:
        return wnids.index(word)
    lower = [n.lower() for n in names]
    found = [i for i, n in enumerate(lower) if n == word.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        raise AttrsensError(f"{what} {word!r} names classes {' and '.join(map(str, found))}; give the index")
    if not names:
        raise AttrsensError(f"{what} {word!r}: this model has no class names; give an index or --classes FILE")
    near = difflib.get_close_matches(word.lower(), lower, n=3, cutoff=0.6)
    near = near or [n for n in lower if word.lower() in n.split()][:3]
    nearest = ", ".join(f"{names[lower.index(n)]} ({lower.index(n)})" for n in near)
    hint = f"did you mean {nearest}?" if nearest else f"give a class name or an index from 0 to {count - 1}"
    raise AttrsensError(f"{what} {word!r} is not a class of this model; {hint}")


def load_labels(name: str) -> Labels:
    """A named set ("imagenet", "cifar10", "mnist") or a text file with one class name a line.

    Raises:
        AttrsensError: no such file, or nothing in it.
    """
    if name in NAMED:
        text = (resources.files("attrsens.models") / "classes" / f"{name}.csv").read_text()
        rows = list(csv.reader(text.splitlines()))[1:]
        wnids = tuple(r[0] for r in rows)
        return Labels(tuple(r[1] for r in rows), wnids if all(wnids) else ())
    if not Path(name).exists():
        raise AttrsensError(f"classes: no file {name}; give a text file, one name a line, or {' or '.join(NAMED)}")
    try:
        lines = read_bytes(name).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise AttrsensError(f"classes: {name} is not UTF-8 text") from None
    except InputError as error:
        raise AttrsensError(f"classes: {error}") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise AttrsensError(f"classes: {name} holds no name")
    return Labels(names)
