"""Baselines as files: reading an earlier report that anybody may have written, and writing one that fits in git.

What is read is data of fixed types and sizes; nothing in it is trusted.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from attrsens.engine.drift import Entry
from attrsens.engine.inputs import printable
from attrsens.engine.report import SCHEMA_VERSION, PassInfo, Record, Report, to_data
from attrsens.errors import AttrsensError, InputError
from attrsens.heatmaps import unsketch
from attrsens.images import read_bytes

LIMIT = 64 * 2**20  # bytes of a baseline
OPTIONS = ("precision", "fold", "device")  # that a baseline keeps


@dataclass(frozen=True)
class Ran:
    """What a report says of the run: versions of packages, sha256 of weights by model id, device, threads."""

    versions: dict[str, str]
    weights: dict[str, str]
    device: str
    threads: int


@dataclass(frozen=True)
class Baseline:
    """What is read of an earlier report; `sha256` of the file, `path` as it was given."""

    schema_version: int
    command: str
    config: dict[str, Any]
    records: list[Entry]
    provenance: Ran
    path: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class _Head:
    schema_version: int
    command: str
    records: list[Any]


def read(path: str | Path) -> Baseline:
    """A report from a file, checked.

    Raises:
        AttrsensError: not there, not a regular file, above 64 MiB, not an attrsens report, of another schema version,
            damaged, or without records.
    """
    found = _open(path)
    if isinstance(found, AttrsensError):
        raise found
    return found


def prior(path: str | Path, update: bool) -> Baseline | None:
    """As `read`; with `update` None where there is no file yet, or one of attrsens's that cannot be used any more.

    Raises:
        AttrsensError: as `read`; with `update` if the file is somebody else's, which is never replaced.
    """
    found = _open(path)
    if isinstance(found, Baseline):
        return found
    if update and (isinstance(found, _Spoilt) or not os.path.lexists(path)):
        return None
    raise found


class _Spoilt(AttrsensError):
    """A report of attrsens's that cannot be used."""


def _open(path: str | Path) -> Baseline | AttrsensError:
    import msgspec

    where = f"baseline {clean(printable(str(path)))}"
    try:
        data = read_bytes(path, LIMIT, "baselines")
    except (InputError, ValueError) as error:
        there = os.path.lexists(path) if "\0" not in str(path) else True
        return AttrsensError(f"baseline {clean(str(error))}{'' if there else '; --update writes one'}")
    failures = (ValueError, RecursionError, msgspec.MsgspecError)
    try:
        head = msgspec.json.decode(data, type=_Head)
    except failures:
        return AttrsensError(f"{where}: not an attrsens report; give a report.json")
    if head.schema_version != SCHEMA_VERSION:
        message = f"schema version {head.schema_version}, this attrsens reads {SCHEMA_VERSION}"
        return _Spoilt(f"{where}: {message}; --update makes it anew")
    try:
        found = msgspec.json.decode(data, type=Baseline)
        if not found.records:
            return _Spoilt(f"{where}: holds no record; --update makes it anew")
        for i, entry in enumerate(found.records):
            _check(entry, i)
    except failures as error:
        return _Spoilt(f"{where}: damaged ({clean(str(error))}); --update makes it anew")
    return replace(found, path=printable(str(path)), sha256=hashlib.sha256(data).hexdigest())


def _check(entry: Entry, place: int) -> None:
    try:
        unsketch(entry.heatmap.sketch, entry.heatmap.sketch_scale)
    except ValueError as error:
        raise ValueError(f"record {place}: {error}") from None
    numbers = (entry.target.probability, entry.input.noise, *entry.method.parameters.values())
    if not all(math.isfinite(v) for v in numbers if isinstance(v, float)):
        raise ValueError(f"record {place}: a number is not finite")
    if not 0 <= entry.target.probability <= 1 or entry.target.rank < 1:
        raise ValueError(f"record {place}: a probability lies between 0 and 1, a rank is 1 or more")


def slim(report: Report) -> bytes:
    """The report as a baseline: valid by the schema, a line a record (about 3 kB: the sketch is 2.1 kB), without
    scores, similarities, files, command line, or folders of images; what `check` uses is all there.

    Raises:
        InputError: the run was interrupted, lacks a map, or has no records: a baseline holds whole runs.
    """
    lost = [f for f in report.failures if f.stage != "score"]
    if report.provenance.interrupted or lost or not report.records:
        why = f"{len(lost)} failures, the first: {clean(lost[0].message)}" if lost else "the run has no records"
        why = "the run was interrupted" if report.provenance.interrupted else why
        raise InputError(f"update: {why}; a baseline holds whole runs")
    small = replace(
        report,
        config={name: report.config[name] for name in ("method", "model", "target", *OPTIONS) if name in report.config},
        records=[_slim(r) for r in report.records],
        aggregates=[], comparisons=[], effects=[], figures=[], gates=[], skipped=[], attributions=[],
        provenance=replace(report.provenance, argv=[], seconds=0.0, cached_cells=0, damaged_cells=0,
                           passes_run=PassInfo(), peak_memory_mb=None),
    )  # fmt: skip
    data = to_data(small)
    records = data.pop("records")
    lines = [f'"{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in data.items()]
    rows = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    lines.insert(3, f'"records": [\n{rows}\n]')
    return ("{" + ",\n".join(lines) + "}\n").encode()


def _slim(r: Record) -> Record:
    image = replace(r.image, path=PurePosixPath(r.image.path.replace("\\", "/")).name, notes=[])
    heatmap = replace(r.heatmap, png=None, npy=None)
    return replace(r, image=image, heatmap=heatmap, similarities=[], scores={}, attack=None, artifacts={}, notes={})


def clean(text: str) -> str:
    """Text of somebody else's on one line of at most 200 characters, without control characters."""
    kept = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+", " ", text)
    return kept if len(kept) <= 200 else kept[:197] + "..."
