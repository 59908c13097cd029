"""The whole page: what a command found as one HTML file without a single reference to the outside."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from attrsens.engine.report import Report
from attrsens.render.html.cards import Gallery
from attrsens.render.html.markup import Html, join, tag
from attrsens.render.html.names import Names
from attrsens.render.html.plots import ramp, shades
from attrsens.render.html.sections import IMAGES, SECTIONS
from attrsens.render.html.thumbs import Results, Thumbs, sketch_limits, step_of
from attrsens.render.picture import palette
from attrsens.render.writer import PAGE_MARK

MOST = 9_500_000  # bytes of a page
DETAIL = 2_500_000  # bytes of the numbers and curves of single images
SKETCH = 1_500  # bytes that the sketch of a map takes
AROUND = 450  # bytes around a picture
_LATER = re.compile("\0(\\d+)\0")


class Page:
    """Collects thumbnails while maps come, and makes the page of the report.

    Args:
        folder: where the report goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.thumbs = Thumbs(folder, MOST)

    def add(self, groups: list[Results]) -> None:
        """Take the maps of an image; those of one group share a scale.

        Raises:
            OutputError: the disk is full or failing.
        """
        self.thumbs.add(groups)

    def finish(self, report: Report) -> bytes:
        """The page, as UTF-8; the thumbnails are gone afterwards."""
        try:
            return _Making(self, report).whole()
        finally:
            self.thumbs.close()


class _Making:
    """One page in the making."""

    def __init__(self, page: Page, report: Report) -> None:
        self.page, self.report, self.names = page, report, Names(report)
        self.waiting: list[Callable[[], Html]] = []
        self.limits: dict[str, float] = {}
        self.side = 0

    def whole(self) -> bytes:
        made = [(s, s.make(self.report, self.names, self.page.folder)) for s in SECTIONS]
        style, script = _style(), _asset("script.js")
        head, foot = (
            self._head(style, [s.slug for s, body in made if body]),
            tag("script", Html(script)) + "</body></html>\n",
        )
        used = sum(len(body.encode()) for _, body in made if body) + len(head.encode()) + len(foot)
        gallery = Gallery(
            self.report, self.names, lambda r: self.page.thumbs.of_map(r, self.limits), self.page.thumbs.of_input,
            self._later, MOST - used, SKETCH + AROUND, DETAIL,
        )  # fmt: skip
        cards = gallery.cards()
        used += sum(len(card.encode()) for card in cards) + AROUND * len(self.waiting)
        self.side = self.page.thumbs.best(MOST - used)
        missing = self.side == 0 or any(self.page.thumbs.of_map(r, {}) is None for r in gallery.shown)
        self.limits = sketch_limits(gallery.shown) if missing else {}
        parts: list[str] = [head]
        for section, body in made:
            whole = self._images(gallery, cards) if section is IMAGES and cards else body
            if whole:
                attributes = {"id": section.slug, "aria_labelledby": f"{section.slug}-title"}
                title = tag("h2", section.title, id=f"{section.slug}-title")
                parts.append(tag("section", title, whole, **attributes))
        return "".join([*map(self._filled, parts), "</main>", foot]).encode()

    def _later(self, make: Callable[[], Html]) -> Html:
        """A mark that no text from outside can hold, for what is made once the size of pictures is known."""
        self.waiting.append(make)
        return Html(f"\0{len(self.waiting) - 1}\0")

    def _filled(self, part: str) -> str:
        return _LATER.sub(lambda found: self.waiting[int(found[1])](), part)

    def _head(self, style: str, slugs: list[str]) -> str:
        r = self.report
        script = _asset("script.js")
        policy = f"default-src 'none'; img-src data:; style-src {_sha(style)}; script-src {_sha(script)}; "
        policy += "base-uri 'none'; form-action 'none'"
        images = len({record.image.sha256 for record in r.records})
        counts = [_count(len(r.records), "map"), "of", _count(images, "image")]
        models = list(dict.fromkeys(record.model.name for record in r.records))
        title = f"attrsens {r.command}"
        links = [
            tag("li", tag("a", s.title, href=f"#{s.slug}"))
            for s in SECTIONS
            if s.slug in slugs or (s is IMAGES and r.records)
        ]
        head = tag(
            "head",
            tag("meta", charset="utf-8"),
            Html(PAGE_MARK),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", title),
            tag("style", Html(style)),
        )
        top = tag(
            "header",
            tag("h1", title, " ", _verdict(r)),
            tag("p", " ".join(counts), f"; {', '.join(models)}" if models else "", class_="sub"),
            tag("nav", tag("ul", links), aria_label="Sections") if links else None,
        )
        return f'<!DOCTYPE html>\n<html lang="en">{head}<body>{top}<main>'

    def _images(self, gallery: Gallery, cards: list[Html]) -> Html:
        thumbs = [self.page.thumbs.of_map(r, self.limits) for r in gallery.shown[:1]]
        means = [t.mean for t in thumbs if t]
        note = "Red speaks for the class, blue against it, white is zero. The maps of one model and method on an image "
        note += "share a scale; the numbers at its ends are the values of full colour, beyond which colours are cut. "
        if means and means[0] > 1.01:
            side = f"{self.side} px" if self.side else "28 px (sketches, as there are many)"
            note += (
                f"Thumbnails have {side}: a dot is the mean over {means[0]:.2g} x {means[0]:.2g} pixels of the map. "
            )
        hint = f"Point at a map, or touch it, for the value there, in steps of 1/{128 // step_of(self.side)} of full "
        hint += "colour; arrow keys move on."
        left = []
        if gallery.left_out:
            left.append(f"{_count(gallery.left_out, 'image')} more, for which the page has no room, in report.json.")
        if gallery.bare:
            left.append(f"The numbers of {_count(gallery.bare, 'image')} are in report.json alone.")
        orders = [tag("option", "as given", value="given"), tag("option", "name", value="name")]
        orders += [tag("option", order.label, value=order.slug) for order in gallery.orders]
        tools = tag(
            "form",
            tag("label", "Sort by ", tag("select", orders, id="sort")),
            tag("label", "Find ", tag("input", type="search", id="find", placeholder="name or class")),
            tag("label", "Size ", tag("input", type="range", id="size", min=98, max=450, step=32, value=226)),
            class_="tools",
            id="tools",
            hidden=True,
        )
        lines = [tag("p", line, class_="note") for line in left]
        gallery_ = tag("div", cards, id="gallery", data_palette=palette().tobytes().hex())
        return join(
            [tag("p", note, tag("span", hint, class_="js", hidden=True), class_="note"), tools, lines, gallery_]
        )


def _verdict(report: Report) -> Html:
    failed = sum(not gate.passed for gate in report.gates)
    words: list[Html] = []
    if report.provenance.interrupted:
        words.append(tag("span", "interrupted", class_="badge bad"))
    if failed:
        words.append(tag("span", f"{failed} of {_count(len(report.gates), 'gate')} failed", class_="badge bad"))
    elif report.gates:
        words.append(tag("span", f"{_count(len(report.gates), 'gate')} passed", class_="badge good"))
    if report.failures:
        words.append(tag("span", _count(len(report.failures), "failure"), class_="badge bad"))
    return join(words, " ")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _sha(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    return _asset("style.css").replace("RAMP", ramp()) + shades()
