"""The packaged sample pictures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from attrsens.errors import unknown


@dataclass(frozen=True)
class Sample:
    """A packaged picture.

    Attributes:
        right: ImageNet classes that a person would let pass for what it shows; none where no class is plainly right.
        top1, probability, index: what lite0 says of it.
    """

    name: str
    file: str
    what: str
    source: str
    licence: str
    right: tuple[int, ...]
    top1: str
    probability: float
    index: int

    @property
    def photo(self) -> bool:
        """Whether it was taken with a camera."""
        return not self.source.startswith("generated")

    @property
    def path(self) -> Path:
        return folder() / self.file


def folder() -> Path:
    """Where the pictures lie: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "sample_images"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "sample_images"


@cache
def samples() -> dict[str, Sample]:
    """Every sample by name, the default first."""
    with (folder() / "samples.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        r["name"]: Sample(
            r["name"],
            r["file"],
            r["what"],
            r["source"],
            r["licence"],
            tuple(int(c) for c in r["right"].split()),
            r["lite0_top1"],
            float(r["lite0_probability"]),
            int(r["lite0_index"]),
        )
        for r in rows
    }


def sample(name: str) -> Sample:
    """One sample.

    Raises:
        AttrsensError: unknown; the message lists what exists.
    """
    if name not in samples():
        raise unknown("sample", name, samples())
    return samples()[name]


def located(text: str) -> Path:
    """The file that `sample:NAME` or a path means.

    Raises:
        AttrsensError: no such sample.
    """
    return sample(text.removeprefix("sample:")).path if text.startswith("sample:") else Path(text)
