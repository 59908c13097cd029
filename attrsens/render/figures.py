"""An output folder that also has `figures/`: pages of strips as they fill, and whatever else a command draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.errors import OutputError
from attrsens.render.montage import PER_PAGE, Strip, montage_png
from attrsens.render.writer import Result, Writer, our_png

if TYPE_CHECKING:
    from attrsens.engine.report import Report


class FigureWriter(Writer):
    """A `Writer` that draws: `strips` of an image as it comes, and `drawn` from the whole report."""

    def __init__(self, folder: str | Path, *arguments: Any, **options: Any) -> None:
        super().__init__(folder, *arguments, **options)
        self._strips: list[Strip] = []
        self._figures: list[str] = []

    def strips(self, results: list[Result]) -> Iterable[Strip]:
        """The rows of the montage that the maps of an image make."""
        raise NotImplementedError

    def drawn(self, report: Report) -> Iterator[tuple[str, bytes]]:
        """(name, PNG) of every other figure."""
        raise NotImplementedError

    def add(self, results: list[Result]) -> None:
        """As `Writer.add`, and the pages that are full."""
        super().add(results)
        if "png" in self.formats:
            self._strips += self.strips(results)
            while len(self._strips) >= PER_PAGE:
                self._page(self._strips[:PER_PAGE])
                del self._strips[:PER_PAGE]

    def finish(self, report: Report) -> None:
        """As `Writer.finish`, after the figures that are left."""
        if "png" in self.formats:
            if self._strips:
                self._page(self._strips)
                self._strips = []
            for name, data in self.drawn(report):
                self._figure(name, data)
        report.figures = self._figures
        super().finish(report)

    def _page(self, rows: list[Strip]) -> None:
        count = sum("montage" in name for name in self._figures)
        self._figure(f"montage-{count + 1}", montage_png(rows))

    def _figure(self, name: str, data: bytes) -> None:
        path = self.folder / "figures" / f"{name}.png"
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror})") from None
        self._guard(path, our_png)
        self._write(f"figures/{name}.png", data)
        self._figures.append(f"figures/{name}.png")
