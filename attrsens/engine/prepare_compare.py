"""Checking a request to compare, cheapest first."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrsens.engine.agreement import of_pairs
from attrsens.engine.baseline import check_names
from attrsens.engine.changes import Erasure, changes
from attrsens.engine.gates import quantities
from attrsens.engine.metrics import Flags
from attrsens.engine.prepare import Prepared, asked, judging_config, prepare
from attrsens.errors import AttrsensError

log = logging.getLogger("attrsens")

USUAL = "spearman,hog,ssim,sign_agreement"


def prepare_compare(
    images: Any = (),
    *,
    noise: float | str | Sequence[float | str] = (),
    noise_at: str = "crop",
    erase: str | Path | None = None,
    fill: str | None = None,
    metrics: str | Sequence[str] | None = None,
    metric_parameters: Flags = MappingProxyType({}),
    annotations: str | Path | None = None,
    calibrate: bool | None = None,
    against: str | None = None,
    **options: Any,
) -> Prepared:
    """As `prepare`, for comparisons.

    Args:
        against: a baseline's path: it is something to compare with, so that one method and model will do.

    Raises:
        AttrsensError: see `compare`.
    """
    levels: Iterable[Any] = noise if isinstance(noise, (list, tuple)) else [noise]
    changes(levels, None, at=noise_at)  # their range, before anything is read
    if fill is not None and erase is None:
        raise AttrsensError("fill belongs to --erase; a method takes its own by expression, such as sp:fill=black")
    erasure = Erasure(erase, fill or "mean") if erase is not None else None
    judging = replace(asked(metrics, USUAL, metric_parameters, annotations, calibrate), across=True)
    known = [*quantities(judging), *of_pairs(judging)]
    prepared = prepare(images, **{"known": known} | options)
    found = changes(levels, erasure, int(options.get("seed") or 0), noise_at)
    request = replace(prepared.request, changes=found, one_class=True)
    classifiers = request.classifiers
    if against is not None:
        check_names({c.id: c.name for c in classifiers})
    elif len(request.calls) * len(classifiers) * (len(found) + 1) < 2:
        raise AttrsensError(
            "compare needs two of something: another --method or --model, --noise, --erase, or --baseline"
        )
    if len({c.id for c in classifiers}) < len(classifiers):
        raise AttrsensError("compare: a model is given twice")
    counts = {c.name: c.class_count for c in classifiers} if len(classifiers) > 1 else {}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise AttrsensError(f"compare explains the same class in all models; theirs differ: {told} classes")
    frames = {(c.preprocess.resize, c.preprocess.crop, c.preprocess.squash) for c in classifiers}
    if len(frames) > 1 and judging.similarities:
        log.warning("the models see different parts of an image, so that their maps cannot be compared with each other")
    config = {
        **prepared.config,
        **judging_config(judging, annotations),
        "noise": [0.0, *dict.fromkeys(c.noise for c in found if c.noise)],
        "noise_at": noise_at,
        "noise_seed": int(options.get("seed") or 0),
        "erase": erasure.name if erasure else None,
        "fill": erasure.fill if erasure else None,
        "baseline": None,
    }
    return replace(prepared, request=request, config=config, command="compare", judging=judging)
