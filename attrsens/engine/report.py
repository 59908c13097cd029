"""The report: one shape for every command. The shipped JSON Schema is generated from these types."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.report_rows import Aggregate as Aggregate
from attrsens.engine.report_rows import AttackInfo as AttackInfo
from attrsens.engine.report_rows import Comparison as Comparison
from attrsens.heatmaps import flat, sketch

SCHEMA_VERSION = 1
Value = int | float | str | bool


@dataclass
class ImageInfo:
    """path as given; sha256 of the decoded pixels; size (height, width); what decoding had to decide."""

    path: str
    sha256: str
    size: tuple[int, int]
    notes: list[str] = field(default_factory=list)


@dataclass
class PredictionInfo:
    """A changed input: its top class, the explained class's probability and rank; flipped: the top is another."""

    top: int
    label: str | None
    probability: float
    rank: int
    flipped: bool


@dataclass
class InputInfo:
    """What was done to the input before it was explained. noise: sd of Gaussian noise, in units of the pixels' range.
    erased: the mask whose inside `fill` replaced. prediction: of the changed input, null where nothing was changed."""

    noise: float = 0.0
    erased: str | None = None
    fill: str | None = None
    prediction: PredictionInfo | None = None


@dataclass
class ModelInfo:
    name: str
    id: str


@dataclass
class TargetInfo:
    """Class that is explained; softmax probability and rank (1 = top) on the clean image; true class if known."""

    index: int
    label: str | None
    probability: float
    rank: int
    true: int | None = None


@dataclass
class WrapperInfo:
    name: str
    version: int
    parameters: dict[str, Value]


@dataclass
class MethodInfo:
    """The method, its parameters, the expression that means exactly this call, and the wrappers, innermost first."""

    name: str
    version: int
    parameters: dict[str, Value]
    expression: str
    wrappers: list[WrapperInfo] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The names alone: `grad+smooth`."""
        return "+".join([self.name, *(w.name for w in self.wrappers)])


@dataclass
class HeatmapInfo:
    """Files relative to the report; shape, extremes and mean of the map; 28 x 28 area means as base64 of
    little-endian float16, to be multiplied by sketch_scale."""

    png: str | None
    npy: str | None
    shape: list[int]
    min: float
    max: float
    mean: float
    sketch: str
    sketch_scale: float

    @classmethod
    def of(cls, heatmap: NDArray[np.float32]) -> HeatmapInfo:
        """Of a map; its files are the writer's to name."""
        text, scale = sketch(heatmap)
        low, high, mean = float(heatmap.min()), float(heatmap.max()), float(flat(heatmap).astype(np.float64).mean())
        return cls(None, None, list(heatmap.shape), low, high, mean, text, scale)


@dataclass
class SimilarityInfo:
    """Similarity of the record's map to the map `to`.

    floor: to the matched control in its place (compare: the mean over either map's place); `controls` to each control.
    ceiling: what two maps can reach at most whose methods draw: the geometric mean of their similarities to themselves
    with another seed (of distances, the mean). rescaled, reason: as in scores.
    """

    name: str
    value: float | None
    to: str
    role: str
    floor: float | None
    ceiling: float | None
    definition: str
    direction: str
    reason: str | None = None
    rescaled: float | None = None
    controls: dict[str, float | None] = field(default_factory=dict)


@dataclass
class PassInfo:
    """Images that went through the network."""

    forward: int = 0
    backward: int = 0


@dataclass
class ScoreInfo:
    """A score of the record's map.

    floor: what the matched control reaches in the map's place; `controls` what each does. ceiling: what the same method
    with another seed does; for scores of noisy copies, how far the map is from that one. rescaled: (value - floor) /
    (best - floor), best the end of the score's range. reason: why there is no value. details: further numbers of the
    same computation. passes: what the score costs by itself, besides the map.
    """

    key: str
    value: float | None
    floor: float | None
    ceiling: float | None
    definition: str
    direction: str
    curve: list[float] | None = None
    reason: str | None = None
    rescaled: float | None = None
    controls: dict[str, float | None] = field(default_factory=dict)
    details: dict[str, float | None] = field(default_factory=dict)
    passes: PassInfo = field(default_factory=PassInfo)


@dataclass
class Swept:
    """The place of a record in a sweep: which of the methods' sweeps, the knobs' values, which draw of that setting;
    reference: it is the setting that others are held against; main: the draw of it that is."""

    study: int
    values: dict[str, Value]
    draw: int
    reference: bool
    main: bool


@dataclass
class Record:
    """One explanation: image x input x model x target x method call. `key` is the sha256 of its cell; `notes` are
    numbers the method reports of its own run; `passes` is what the cell costs."""

    key: str
    image: ImageInfo
    input: InputInfo
    model: ModelInfo
    target: TargetInfo
    method: MethodInfo
    heatmap: HeatmapInfo
    passes: PassInfo
    similarities: list[SimilarityInfo] = field(default_factory=list)
    scores: dict[str, ScoreInfo] = field(default_factory=dict)
    attack: AttackInfo | None = None
    artifacts: dict[str, str] = field(default_factory=dict)
    notes: dict[str, float | None] = field(default_factory=dict)
    swept: list[Swept] = field(default_factory=list)


@dataclass
class Failure:
    """An input or a cell without a result; stage: decode, label, annotation, erase, predict, compute or score."""

    image: str
    stage: str
    message: str
    model: str | None = None
    method: str | None = None
    target: int | None = None


@dataclass
class Skipped:
    """An input left out on request, such as by --only-correct."""

    image: str
    model: str
    reason: str


@dataclass
class Gate:
    """Outcome of a condition. observed: the worst row's value, null with a reason. rows, failed: how many were tested,
    and how many of them fail. group: of the worst row."""

    expression: str
    passed: bool
    observed: float | None
    rows: int = 0
    failed: int = 0
    group: dict[str, Any] | None = None
    reason: str | None = None


@dataclass
class Provenance:
    """What ran, when and on what; nothing above it in the report depends on it. passes_planned: of a sweep, those that
    were expected to be needed, beside those that this run made."""

    versions: dict[str, str]
    weights: dict[str, str]
    device: str
    threads: int
    argv: list[str]
    started: str
    seconds: float
    cached_cells: int
    damaged_cells: int
    passes_run: PassInfo
    peak_memory_mb: float | None
    interrupted: bool = False
    passes_planned: PassInfo | None = None


@dataclass
class Report:
    """Everything a command found. `attributions` holds the maps in memory, in the order of `records`, unless they
    were handed on as they came; it is not part of the JSON."""

    command: str
    config: dict[str, Any]
    records: list[Record]
    failures: list[Failure]
    provenance: Provenance
    skipped: list[Skipped] = field(default_factory=list)
    aggregates: list[Aggregate] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    effects: list[Any] = field(default_factory=list)  # of engine.knobs.results and ranks, told apart by `kind`
    figures: list[str] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION
    attributions: list[Any] = field(default_factory=list, repr=False)  # of Attribution


ORDER = (
    "schema_version command config records aggregates comparisons effects figures failures skipped gates provenance"
).split()


def to_data(report: Report) -> dict[str, Any]:
    """The report as plain JSON values, keys in their documented order. ValueError on a number that JSON does not have:
    a missing value is None, with a reason beside it."""
    import msgspec

    data = {name: msgspec.to_builtins(getattr(report, name)) for name in ORDER}
    _refuse_nonfinite(data, "report")
    return data


def to_json(report: Report) -> bytes:
    """The report as indented UTF-8 JSON with a final newline."""
    return b"".join(json_parts(report))


def json_parts(report: Report) -> Iterator[bytes]:
    """What `to_json` gives, piece by piece: a long report need not be in memory once more. Raises as `to_data`."""
    for i, name in enumerate(ORDER):
        yield (b",\n" if i else b"{\n") + f' "{name}": '.encode()
        value = getattr(report, name)
        if name == "records" and value:
            for k, record in enumerate(value):
                yield (b",\n  " if k else b"[\n  ") + _piece(record, f"report.records[{k}]", 2)
            yield b"\n ]"
        else:
            yield _piece(value, f"report.{name}", 1)
    yield b"\n}\n"


def _piece(value: Any, where: str, depth: int) -> bytes:
    import msgspec

    data = msgspec.to_builtins(value)
    _refuse_nonfinite(data, where)
    return msgspec.json.format(msgspec.json.encode(data), indent=1).replace(b"\n", b"\n" + b" " * depth)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the report."""
    import msgspec

    schema = msgspec.json.schema(Report)
    body = schema["$defs"]["Report"]
    body["properties"].pop("attributions")
    body["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    body |= {"properties": {name: body["properties"][name] for name in ORDER}, "required": ORDER}
    for name, definition in schema["$defs"].items():
        if "description" in definition:
            definition["description"] = " ".join(definition["description"].split())
        if "properties" in definition and name != "Report":
            definition["required"] = list(definition["properties"])  # keys never vanish
        for about in definition.get("properties", {}).values():
            if about.get("default") in ([], {}):  # newer releases of msgspec write these
                del about["default"]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "attrsens report, version 1"}
    return head | schema


def _refuse_nonfinite(data: Any, where: str) -> None:
    if isinstance(data, float) and not math.isfinite(data):
        raise ValueError(f"{where} is {data}; reports hold null with a reason instead")
    if isinstance(data, dict):
        for key, value in data.items():
            _refuse_nonfinite(value, f"{where}.{key}")
    if isinstance(data, (list, tuple)):
        for i, value in enumerate(data):
            _refuse_nonfinite(value, f"{where}[{i}]")
