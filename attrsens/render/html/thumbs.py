"""Thumbnails of maps and inputs, encoded as they come, at the largest size at which all of them fit into the page.

Every map is encoded at several sides. The sides whose sum has grown beyond what a page may weigh are given up, so what
is kept never exceeds a few such sums, on disk; below the smallest side are the sketches that the records carry anyway.
"""

from __future__ import annotations

import base64
import io
import tempfile
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.report import Record
from attrsens.errors import OutputError
from attrsens.heatmaps import SKETCH, Attribution, flat, unsketch
from attrsens.render.picture import colour_limit, palette

SIDES = (224, 176, 144, 112, 96, 80, 64, 48, 36)  # pixels of the long side
SMALL = 64  # below it, every fourth colour of the palette: 65 levels; from it on every second: 129
IN_MEMORY = 2**18
Results = list[tuple[Record, Attribution]]


@dataclass(frozen=True)
class Thumb:
    """A picture of the page. limit: value of full colour, of a map; shape: (height, width) in pixels; mean: how many
    pixels of the map (a side) one of these is the mean of."""

    uri: str
    shape: tuple[int, int]
    limit: float | None = None
    mean: float = 1.0


@dataclass
class _Rung:
    """All thumbnails of one side: (place in the file, length, limit, shape, kind)."""

    side: int
    file: IO[bytes]
    size: int = 0
    at: dict[tuple[str, ...], tuple[int, int, float | None, tuple[int, int], float]] = field(default_factory=dict)


class Thumbs:
    """Collects thumbnails.

    Args:
        folder: for temporary files without a name.
        room: bytes that all of them may take in the page, encoded as base64.
    """

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self.room = folder, room
        self.rungs = [_Rung(side, self._file()) for side in SIDES]
        self._close = weakref.finalize(self, _close, [rung.file for rung in self.rungs])

    def _file(self) -> IO[bytes]:
        return tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(self.folder))

    def add(self, groups: list[Results]) -> None:
        """Take the maps of an image; those of one group share a scale.

        Raises:
            OutputError: the disk is full or failing.
        """
        try:
            for rung in self.rungs:
                for group in groups:
                    self._add(rung, group)
        except OSError as error:
            raise OutputError(f"{self.folder}: thumbnails cannot be written ({error.strerror})") from None
        self.rungs = [rung for rung in self.rungs if rung.size <= self.room]

    def _add(self, rung: _Rung, group: Results) -> None:
        small = [shrunk(flat(a.map), rung.side) for _, a in group]
        limit = colour_limit(small)
        for (record, attribution), heatmap in zip(group, small, strict=True):
            mean = max(attribution.map.shape[-2:]) / max(heatmap.shape)
            self._put(rung, _map_key(record), map_png(heatmap, limit, step_of(rung.side)), limit, heatmap.shape, mean)
            if attribution.input is not None and input_key(record) not in rung.at:
                data, shape = picture(attribution.input, rung.side)
                self._put(rung, input_key(record), data, None, shape, 1.0)

    def _put(
        self, rung: _Rung, key: tuple[str, ...], data: bytes, limit: float | None, shape: Any, mean: float
    ) -> None:
        start = rung.file.seek(0, 2)
        rung.file.write(data)
        rung.at[key] = (start, len(data), limit, (int(shape[0]), int(shape[1])), mean)
        rung.size += -(-len(data) // 3) * 4 + 24

    def best(self, room: int) -> int:
        """Choose the largest side at which everything fits into `room` bytes; 0 stands for sketches."""
        self.rungs = [rung for rung in self.rungs if rung.size <= room][:1]
        return self.rungs[0].side if self.rungs else 0

    def of_map(self, record: Record, limits: dict[str, float]) -> Thumb | None:
        """The map of a record, or its sketch on the scale of `limits` (by key of the record)."""
        found = self._get(_map_key(record), "png")
        if found or record.key not in limits:
            return found
        h = record.heatmap
        small = unsketch(h.sketch, h.sketch_scale).astype(np.float32)
        uri = _uri(map_png(small, limits[record.key], step_of(SKETCH)), "png")
        return Thumb(uri, (small.shape[0], small.shape[1]), limits[record.key], max(h.shape[-2:]) / small.shape[0])

    def of_input(self, record: Record) -> Thumb | None:
        return self._get(input_key(record), "jpeg")

    def _get(self, key: tuple[str, ...], kind: str) -> Thumb | None:
        for rung in self.rungs[:1]:
            if key in rung.at:
                start, length, limit, shape, mean = rung.at[key]
                rung.file.seek(start)
                return Thumb(_uri(rung.file.read(length), kind), shape, limit, mean)
        return None

    def close(self) -> None:
        self._close()


def _close(files: list[IO[bytes]]) -> None:
    for file in files:
        file.close()


def _map_key(record: Record) -> tuple[str, ...]:
    return ("map", record.image.path, record.key)


def input_key(record: Record) -> tuple[str, ...]:
    """What the pixels that a model saw depend on."""
    i = record.input
    key = record.key if record.attack and record.attack.of != record.key else ""  # an attacked image of its own
    return ("input", record.image.path, record.model.id, f"{i.noise!r}", i.erased or "", i.fill or "", key)


def sketch_limits(records: list[Record]) -> dict[str, float]:
    """By record's key the value of full colour of its sketch; maps of one image, model and method share it."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.image.path, record.model.id, record.method.title), []).append(record)
    out: dict[str, float] = {}
    for group in groups.values():
        maps = [unsketch(r.heatmap.sketch, r.heatmap.sketch_scale).astype(np.float32) for r in group]
        limit = colour_limit(maps)
        out |= {record.key: limit for record in group}
    return out


def shrunk(heatmap: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A map whose long side is at most `side`: means over areas."""
    from PIL import Image

    height, width = heatmap.shape
    share = side / max(height, width)
    if share >= 1:
        return heatmap
    size = max(1, round(width * share)), max(1, round(height * share))
    found: NDArray[np.float32] = np.asarray(
        Image.fromarray(np.ascontiguousarray(heatmap, np.float32)).resize(size, Image.Resampling.BOX)
    )
    return found


def step_of(side: int) -> int:
    return 4 if side < SMALL else 2


def map_png(heatmap: NDArray[np.float32], limit: float, step: int) -> bytes:
    """PNG bytes with one byte a pixel: an index into every `step`th colour, zero in the middle."""
    from PIL import Image

    levels = 128 // step
    scaled = np.clip(heatmap.astype(np.float64) / limit, -1, 1) if limit > 0 else np.zeros(heatmap.shape)
    image = Image.fromarray((np.round(scaled * levels) + levels).astype(np.uint8))
    image.putpalette(palette()[::step].tobytes())
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=6)
    return out.getvalue()


def picture(pixels: NDArray[np.uint8], side: int) -> tuple[bytes, tuple[int, int]]:
    """(bytes, shape) of what the classifier saw."""
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB")
    if max(image.size) > side:
        share = side / max(image.size)
        size = max(1, round(image.width * share)), max(1, round(image.height * share))
        image = image.resize(size, Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue(), (image.height, image.width)


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
