"""Reports for the tests of the page: records with maps that are drawn, and a reader of HTML that is strict."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from attrsens.engine.report import (
    HeatmapInfo,
    ImageInfo,
    InputInfo,
    MethodInfo,
    ModelInfo,
    PassInfo,
    Provenance,
    Record,
    Report,
    ScoreInfo,
    SimilarityInfo,
    TargetInfo,
)
from attrsens.heatmaps import Attribution

VOID = set("area base br col embed hr img input link meta source track wbr".split())
Result = tuple[Record, Attribution]


def result(
    image: str = "img.jpg",
    n: int = 1,
    side: int = 32,
    *,
    model: str = "lite0",
    label: str = "cat",
    probability: float = 0.5,
    noise: float = 0.0,
    heatmap: np.ndarray | None = None,
) -> Result:
    """A map of an image; `n` is the method's parameter."""
    seed = np.random.default_rng([*image.encode(), n, *model.encode()])
    drawn = seed.standard_normal((side, side)).astype(np.float32) if heatmap is None else heatmap
    key = f"{seed.integers(2**62):016x}" * 4
    record = Record(
        key, ImageInfo(image, "0" * 64, (30, 45)), InputInfo(noise), ModelInfo(model, f"{model}@1"),
        TargetInfo(5, label, probability, 1), MethodInfo("sg", 1, {"n": n}, f"sg:n={n}"), HeatmapInfo.of(drawn),
        PassInfo(3, 2),
    )  # fmt: skip
    pixels = seed.integers(0, 256, (*drawn.shape[-2:], 3), dtype=np.uint8)
    return record, Attribution(drawn, 5, label, probability, {}, pixels)


def alike(record: Record, other: Record, value: float, role: str = "pair", name: str = "ssim") -> None:
    """Note a similarity."""
    found = SimilarityInfo(name, value, other.key, role, 0.1, 0.9, "a definition", "higher", rescaled=value)
    record.similarities.append(found)


def scored(record: Record, value: float, name: str = "insertion") -> None:
    """Note a score with a curve."""
    curve = [value * i / 9 for i in range(10)]
    record.scores[name] = ScoreInfo("k", value, 0.1, 0.9, "its definition; class 5", "higher", curve=curve)


def report(records: list[Record], command: str = "explain", **more: object) -> Report:
    provenance = Provenance(
        {"attrsens": "0"}, {}, "cpu", 2, ["attrsens", command], "2026-01-01", 1.5, 0, 0, PassInfo(7, 5), None
    )
    return Report(command, {"seed": 0}, records, more.pop("failures", []), provenance, **more)  # type: ignore[arg-type]


class Page(HTMLParser):
    """Reads a page and raises where elements are not closed in order.

    Attributes:
        elements: (name, attributes) in order. text: what a reader sees. addresses: all of src, href and the like.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.addresses: list[str] = []
        self.feed(data.decode())
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs)))
        wanted = ("src", "href", "srcset", "action", "formaction", "poster", "data", "background", "xlink:href", "ping")
        self.addresses += [value or "" for name, value in attrs if name in wanted]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
