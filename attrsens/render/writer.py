"""The output folder: heatmaps as they come, the report at the end, never a file of somebody else's replaced."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attrsens.engine.report import Record, Report, json_parts
from attrsens.engine.store import clean, temporary_name
from attrsens.errors import AttrsensError, OutputError
from attrsens.heatmaps import Attribution, flat
from attrsens.render.curves import curves_png
from attrsens.render.junit import to_junit
from attrsens.render.markdown import MARK, to_markdown
from attrsens.render.picture import colour_limit, heatmap_png
from attrsens.render.table import COLUMNS, SCORE_COLUMNS, scores_csv, to_csv

if TYPE_CHECKING:
    from attrsens.render.html.page import Page

FORMATS = ("png", "npy", "csv", "junit", "md", "github")
PAGE_MARK = '<meta name="generator" content="attrsens">'
TEMPORARY = ".attrsens-"
Result = tuple[Record, Attribution]


class Writer:
    """Writes into a folder.

    Args:
        folder: made if need be.
        formats: png, npy, csv, junit (junit.xml), md (report.md); github writes no file.
        force: replace files that attrsens did not write.
        overlay: draw maps over the grey picture.

    Raises:
        AttrsensError: an unknown format, a folder that cannot be written, or a report there that is not attrsens's.
    """

    def __init__(
        self,
        folder: str | Path,
        formats: Iterable[str] = ("png",),
        *,
        force: bool = False,
        overlay: bool = False,
    ) -> None:
        self.folder, self.formats, self.force, self.overlay = Path(folder), tuple(formats), force, overlay
        check_formats(self.formats)
        try:
            (self.folder / "heatmaps").mkdir(parents=True, exist_ok=True)
            probe = self.folder / temporary_name(TEMPORARY)
            probe.touch()
            probe.unlink()
            for place in ("", "heatmaps/", "figures/"):  # what a run that was killed left
                clean(self.folder.glob(f"{place}{TEMPORARY}*"), TEMPORARY)
        except OSError as error:
            raise AttrsensError(
                f"out: {self.folder} cannot be written ({error.strerror}); choose another --out"
            ) from None
        self._guard(self.folder / "report.json", _our_report)
        self._guard(self.folder / "report.html", _our_text)
        self._html: Page | None = None
        if "csv" in self.formats:
            self._guard(self.folder / "report.csv", _our_table)
        for name in self._texts():
            self._guard(self.folder / name, _our_text)

    def add(self, results: list[Result]) -> None:
        """Write the heatmaps of one image and name them in their records. Maps of one model and method share a scale.

        Raises:
            AttrsensError: a file of that name is not attrsens's.
            OutputError: the disk is full or failing.
        """
        groups = scales(results)
        for group, limit in groups:
            for record, attribution in group:
                stem = f"heatmaps/{heatmap_name(record)}"
                if "png" in self.formats:
                    data = heatmap_png(
                        flat(attribution.map),
                        limit,
                        caption(record),
                        pixels=attribution.input,
                        blend=self.overlay,
                    )
                    self._guard(self.folder / f"{stem}.png", our_png)
                    self._write(f"{stem}.png", data)
                    record.heatmap.png = f"{stem}.png"
                if "png" in self.formats and any(score.curve for score in record.scores.values()):
                    name = f"{stem}.curves.png"
                    self._guard(self.folder / name, our_png)
                    self._write(name, curves_png(record.scores, caption(record)))
                    record.artifacts["curves"] = name
                if "npy" in self.formats:
                    out = io.BytesIO()
                    np.save(out, attribution.map, allow_pickle=False)
                    self._guard(self.folder / f"{stem}.npy", partial(_our_npy, shape=attribution.map.shape))
                    self._write(f"{stem}.npy", out.getvalue())
                    record.heatmap.npy = f"{stem}.npy"
        self._made_page().add([group for group, _ in groups])

    def finish(self, report: Report) -> None:
        """Write the report and its page (and tables, JUnit XML and Markdown), replacing those of an earlier run.

        Raises:
            OutputError: the disk is full or failing.
        """
        self.write_report(report)
        self._write("report.html", self._made_page().finish(report))
        self._html = None
        for name, make in self._texts().items():
            self._write(name, make(report))
        if "csv" in self.formats:
            self._write("report.csv", to_csv(report.records))
            if report.command in ("score", "sweep", "compare", "attack"):
                self._guard(self.folder / "scores.csv", partial(_our_table, columns=SCORE_COLUMNS))
                self._write("scores.csv", scores_csv(report.records))

    def _made_page(self) -> Page:
        if self._html is None:
            from attrsens.render.html.page import Page

            self._html = Page(self.folder)
        return self._html

    def write_report(self, report: Report) -> None:
        """Write report.json alone."""
        write_file(self.folder / "report.json", json_parts(report))

    def _texts(self) -> dict[str, Callable[[Report], bytes]]:
        """The files beside report.json that are asked for, and what makes them."""
        made: dict[str, tuple[str, Callable[[Report], bytes]]] = {
            "junit": ("junit.xml", to_junit),
            "md": ("report.md", lambda report: to_markdown(report).encode()),
        }
        return dict(made[name] for name in self.formats if name in made)

    def _guard(self, path: Path, ours: Callable[[Path], bool]) -> None:
        try:
            taken = not self.force and path.exists() and not ours(path)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror})") from None
        if taken:
            raise AttrsensError(f"out: {path} was not written by attrsens; choose another --out, or --force")

    def _write(self, name: str, data: bytes) -> None:
        write_file(self.folder / name, data)


def scales(results: list[Result]) -> list[tuple[list[Result], float]]:
    """Results of one image by model and method, with the value of full red that they share."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for record, attribution in results:
        groups.setdefault((record.model.id, record.method.title), []).append((record, attribution))
    return [(group, colour_limit([flat(a.map) for _, a in group])) for group in groups.values()]


def check_formats(names: Iterable[str]) -> None:
    """Raise unless every format is known.

    Raises:
        AttrsensError: names the one that is not.
    """
    for name in names:
        if name not in FORMATS:
            raise AttrsensError(f"unknown format {name!r}; formats: {', '.join(FORMATS)}")


def write_file(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file whole or not at all; a link is followed, and a pipe or device is written to, not replaced.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = None
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
            return
        path = Path(os.path.realpath(path))
        temporary = path.parent / temporary_name(TEMPORARY)
        with temporary.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror})") from None
    finally:
        if temporary:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def heatmap_name(record: Record) -> str:
    """`<image>.<model>.<method>.<key8>`, safe as a file name anywhere."""
    image = record.image.path.removeprefix("sample:").replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    stem, dot, suffix = image.rpartition(".")
    image = (stem + suffix[suffix.find("#") :] if "#" in suffix else stem) if dot and stem else image
    parts = (re.sub(r"[^A-Za-z0-9_#-]+", "_", part)[:60] for part in (image, record.model.name, record.method.title))
    return f"{'.'.join(parts).replace('#', '-')}.{record.key[:8]}"


def caption(record: Record) -> list[str]:
    """What a picture must say of itself: target and method with the parameters, and what the colours mean."""
    t = record.target
    label = f"{t.label} ({t.index})" if t.label else f"class {t.index}"
    name = record.image.path.rsplit("/", 1)[-1] + changed(record)
    return [
        f"{name}: {label}, p = {t.probability:.3f}, rank {t.rank}, {record.model.name}",
        record.method.expression,
    ]


def changed(record: Record) -> str:
    """What was done to the input, in brackets; nothing for one as it is."""
    i = record.input
    words = [f"without {i.erased.rsplit('/', 1)[-1]}"] if i.erased else []
    words += [f"noise {i.noise:g}"] if i.noise else []
    words += [f"attacked: {record.attack.title}"] if record.attack and record.attack.of != record.key else []
    return f" ({', '.join(words)})" if words else ""


def _our_report(path: Path) -> bool:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"schema_version", "command", "records"} <= set(data)


def _our_table(path: Path, columns: Iterable[str] = COLUMNS) -> bool:
    try:
        with path.open("rb") as file:
            return file.readline().strip() == ",".join(columns).encode()
    except OSError:
        return False


def _our_text(path: Path) -> bool:
    """JUnit XML, Markdown or HTML: a mark stands in one of the first lines."""
    try:
        with path.open("rb") as file:
            head = file.read(300)
            return MARK.encode() in head or PAGE_MARK.encode() in head
    except OSError:
        return False


def _our_npy(path: Path, shape: tuple[int, ...]) -> bool:
    """A float32 array of the map's shape, under a name that carries the map's key."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return bool(array.dtype == np.float32 and array.shape == shape)


def our_png(path: Path) -> bool:
    """Whether attrsens drew it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get("Software") == "attrsens"
    except (OSError, ValueError, SyntaxError):
        return False
