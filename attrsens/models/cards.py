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
    if told is None or FORMAT not in told:
        return None
    try:
        card = json.loads(told[FORMAT])
        steps, classes = card["preprocess"], card["classes"]
        if not (isinstance(classes, list) and 1 < len(classes) <= NAMED and all(isinstance(c, str) for c in classes)):
            raise ValueError("its classes are no list of names")
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
        raise AttrsensError(f"{path}: its model card cannot be used: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise AttrsensError(f"{path}: its model card cannot be read ({str(error)[:100]})") from None


def write_card(card: Mapping[str, Any]) -> dict[str, str]:
    """A card as the metadata of safetensors: one entry, since the order of several is left to chance."""
    return {FORMAT: json.dumps(card, sort_keys=True, allow_nan=False)}


def _header(path: Path) -> dict[str, Any] | None:
    """The metadata of a safetensors file; None for any other file, or one whose header is too large to bother."""
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > LARGEST:
            return None
        try:
            told = json.loads(b"{" + file.read(length - 1)).get("__metadata__")
        except (ValueError, RecursionError):
            return None  # the reader of weights will say what is wrong
    return told if isinstance(told, dict) else None
