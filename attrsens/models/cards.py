"""The model card in the header of a weights file: what it takes to use the network, and how it was made.

A card is read as data from an untrusted file: its architecture has to be one of those that are known by name (never
code of anybody's), its preprocessing passes the checks of `Preprocess`, and what is not understood is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrsens.errors import AttrsensError
from attrsens.images import Preprocess
from attrsens.models.architectures import check_arch

FORMAT = "attrsens-model-1"
LARGEST = 2**20  # bytes of a header that is looked at
NAMED = 10_000  # classes


@dataclass(frozen=True)
class Card:
    """What a file says of its network.

    Attributes:
        told: the whole card, plain values.
    """

    architecture: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    told: Mapping[str, Any]


def read_card(path: Path) -> Card | None:
    """The card of a safetensors file; None where it has none.

    Raises:
        AttrsensError: it has one that is damaged, or that names what is not known.
    """
    told = _header(path)
    return None if told is None or FORMAT not in told else _understood(told[FORMAT], str(path))


def write_card(card: Mapping[str, Any]) -> dict[str, str]:
    """A card as the metadata of safetensors: one entry, since the order of several is left to chance.

    Raises:
        AttrsensError: nobody could read it.
    """
    text = json.dumps(card, sort_keys=True, allow_nan=False)
    if len(json.dumps(text)) > LARGEST // 2:  # the rest is for names and shapes of tensors
        raise AttrsensError(
            f"a model card of {len(text):,} bytes is too long; {len(card['classes']):,} classes want shorter names"
        )
    _understood(text, "model")
    return {FORMAT: text}


def _understood(text: object, what: str) -> Card:
    try:
        card = json.loads(text)  # type: ignore[arg-type]
        steps, classes = card["preprocess"], card["classes"]
        if not (isinstance(classes, list) and 1 < len(classes) <= NAMED and all(isinstance(c, str) for c in classes)):
            raise ValueError("its classes are no list of names")
        "".join(classes).encode()  # which fails for halves of characters
        arch = card["architecture"]
        if not isinstance(arch, str) or arch.startswith("py:"):
            raise ValueError("its architecture is no name")
        settings: dict[str, Any] = {k: tuple(float(v) for v in steps[k]) for k in ("mean", "std")}
        settings |= {k: steps[k] for k in ("resize", "crop", "interp", "squash", "clamp")}
        if any(settings[k] is not None and type(settings[k]) is not int for k in ("resize", "crop")):
            raise ValueError("its sides are no integers")
        if not all(type(settings[k]) is bool for k in ("squash", "clamp")):
            raise ValueError("squash and clamp are true or false")
        check_arch(arch)
        return Card(arch, Preprocess(**settings), tuple(classes), card)
    except AttrsensError as error:
        raise AttrsensError(f"{what}: its model card cannot be used: {error}") from None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise AttrsensError(f"{what}: its model card cannot be read ({str(error)[:100]})") from None


def _header(path: Path) -> dict[str, Any] | None:
    """The metadata of a safetensors file; None for any other file, and for a large header that has no card.

    Raises:
        AttrsensError: a card lies in a header that is too large to be looked at.
    """
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > path.stat().st_size:
            return None
        header = b"{" + file.read(length - 1)
    if length > LARGEST:
        if f'"{FORMAT}"'.encode() not in header:
            return None
        raise AttrsensError(f"{path}: its model card cannot be read (a header of {length:,} bytes; 1 MiB at most)")
    try:
        told = json.loads(header).get("__metadata__")
    except (ValueError, RecursionError):
        return None  # the reader of weights will say what is wrong
    return told if isinstance(told, dict) else None
