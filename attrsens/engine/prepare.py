"""Checking a request, cheapest first, and loading its models: nothing has been computed when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrsens.engine.cell import Call, choose_method, parse_calls
from attrsens.engine.gates import Threshold, parse_gates, quantities, resolve
from attrsens.engine.inputs import Truth, expand, printable
from attrsens.engine.metrics import DEFAULT, DEFAULT_WITH_ANNOTATIONS, Flags, Judging, parse_metrics, spec_of
from attrsens.engine.plan import check
from attrsens.engine.run import Request
from attrsens.engine.store import DEFAULT_LIMIT, Store
from attrsens.errors import AttrsensError
from attrsens.images import Preprocess
from attrsens.models import zoo
from attrsens.models.devices import check_batch, check_device
from attrsens.models.labels import load_labels

if TYPE_CHECKING:
    from attrsens.engine.sweep.design import Sweep
    from attrsens.models.classifier import Classifier


@dataclass(frozen=True)
class Prepared:
    """A request that was checked and its models loaded, with the configuration that the report states.

    Attributes:
        started, begin: when preparing began, as a date and on the monotonic clock.
        command: the verb.
        judging: the scores that are asked for, or None.
        gates: conditions that fail the run.
        sweep: what is varied, or None. attacks: on every map.
    """

    request: Request
    config: dict[str, Any]
    store: Store | None
    started: datetime
    begin: float
    command: str = "explain"
    judging: Judging | None = None
    gates: tuple[Threshold, ...] = ()
    sweep: Sweep | None = None
    attacks: tuple[Call, ...] = ()


def prepare(
    images: Any = (),
    *,
    model: str | Classifier | Sequence[str | Classifier] = "lite0",
    method: str | Sequence[str] | None = None,
    target: str | int | Sequence[str | int] = "top1",
    labels: str | None = None,
    only_correct: bool = False,
    arch: str | None = None,
    preprocess: str | None = None,
    classes: str | None = None,
    sha256: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    fold: bool = True,
    batch: int | str = "auto",
    limit: int | None = None,
    frame: int | None = None,
    offline: bool = False,
    cache: bool = True,
    cache_dir: str | Path | None = None,
    cache_limit: int = DEFAULT_LIMIT,
    fail_if: str | Sequence[str] | None = None,
    known: Sequence[str] | None = (),
    **parameters: Any,
) -> Prepared:
    """Check everything that can be checked, cheapest first, and load the models.

    Args:
        known: the quantities that `fail_if` can test; None where they are known only afterwards.

    Raises:
        AttrsensError: see `explain`.
    """
    started, begin = datetime.now(UTC), time.perf_counter()
    gates = resolve(parse_gates(fail_if), known)
    expressions = texts(method) or [choose_method(parameters)]
    calls = parse_calls(expressions, parameters)
    models: list[Any] = list(model) if isinstance(model, (list, tuple)) else [model]
    _check_models(models, arch, sha256)
    check_device(device)
    if preprocess:
        Preprocess().updated(preprocess)
    targets = texts(target)
    names = load_labels(classes) if classes else load_labels("imagenet") if models == ["lite0"] else None
    for word in targets if names else []:
        if word not in ("top1", "true"):
            names.index(word)  # type: ignore[union-attr]
    if precision not in ("fp32", "bf16"):
        raise AttrsensError(f"precision must be fp32 or bf16; got {precision!r}")
    check_batch(batch)
    if limit is not None and limit < 1:
        raise AttrsensError(f"limit must be at least 1; got {limit}")
    given = list(images) if isinstance(images, (list, tuple)) else [images]
    truth = Truth(labels)
    sources = expand(given, limit=limit, frame=frame)
    options: dict[str, Any] = {
        "arch": arch,
        "preprocess": preprocess,
        "classes": classes,
        "sha256": sha256,
        "device": device,
        "precision": precision,
    }
    how: dict[str, Any] = {"fold": fold, "batch": batch, "offline": offline, "cache": cache, "cache_dir": cache_dir}
    classifiers = load_models(models, **options, **how)
    request = Request(sources, classifiers, targets, calls, truth, only_correct)
    config = {
        "images": [printable(str(g)) if isinstance(g, (str, Path)) else "array" for g in given],
        "method": [c.expression for c in calls],
        "model": [c.name for c in classifiers],
        "models": [_resolved(c) for c in classifiers],
        "target": targets,
        "labels": labels,
        "only_correct": only_correct,
        **options,
        "device": str(classifiers[0].device),
        "precision": classifiers[0].precision,
        "fold": classifiers[0].fold,
        "batch": classifiers[0].asked_batch,
        "limit": limit,
        "frame": frame,
        "offline": offline,
        "fail_if": [gate.expression for gate in gates],
    }
    store = Store(Path(cache_dir) if cache_dir else None, cache_limit) if cache else None
    check(request, store)
    return Prepared(request, config, store, started, begin, gates=gates)


def load_models(
    model: str | Classifier | Sequence[str | Classifier],
    *,
    arch: str | None = None,
    sha256: str | None = None,
    **options: Any,
) -> list[Classifier]:
    """The classifiers that a request names; those that are loaded already stay as they are.

    Args:
        options: of `load`.

    Raises:
        AttrsensError: unknown names, or models that cannot be loaded.
    """
    models: list[Any] = list(model) if isinstance(model, (list, tuple)) else [model]
    files = _check_models(models, arch, sha256)
    return [
        zoo.load(entry, arch=arch if file else None, sha256=sha256, **options) if isinstance(entry, str) else entry
        for entry, file in zip(models, files, strict=True)
    ]


def _check_models(models: Sequence[Any], arch: str | None, sha256: str | None) -> list[bool]:
    """Which of the models are files.

    Raises:
        AttrsensError: an unknown name, or a hash that pins nothing.
    """
    files = [isinstance(m, str) and zoo.is_file(zoo.split(m)[0]) for m in models]
    for entry, file in zip(models, files, strict=True):
        if isinstance(entry, str):
            zoo.check_name(entry, arch if file or not any(files) else None)
    if sha256 is not None:
        zoo.check_sha256(sha256)
        if len(models) != 1:
            raise AttrsensError("sha256 pins one model's weights; give one --model")
    return files


def prepare_score(
    images: Any = (),
    *,
    metrics: str | Sequence[str] | None = None,
    metric_parameters: Flags = MappingProxyType({}),
    annotations: str | Path | None = None,
    calibrate: bool | None = None,
    **options: Any,
) -> Prepared:
    """As `prepare`, for scores.

    Raises:
        AttrsensError: see `score`.
    """
    usual = ",".join(DEFAULT + (DEFAULT_WITH_ANNOTATIONS if annotations else ()))
    judging = asked(metrics, usual, metric_parameters, annotations, calibrate)
    prepared = prepare(images, **{"known": quantities(judging)} | options)
    if judging.similarities and len(prepared.request.calls) < 2:
        raise AttrsensError(f"{judging.similarities[0].name} compares two maps; give a second --method")
    config = {**prepared.config, **judging_config(judging, annotations)}
    return replace(prepared, config=config, command="score", judging=judging)


def asked(
    metrics: str | Sequence[str] | None,
    usual: str,
    metric_parameters: Flags,
    annotations: str | Path | None,
    calibrate: bool | None,
) -> Judging:
    """What is to be judged, from a verb's options.

    Args:
        usual: the metrics where none is named.

    Raises:
        AttrsensError: an unknown metric or value, or annotations that are missing.
    """
    scores, similarities = parse_metrics(texts(metrics) or [usual], metric_parameters)
    regional = [call.name for call in scores if spec_of(call).traits.get("regional")]
    if regional and annotations is None:
        raise AttrsensError(f"{', '.join(regional)}: needs --annotations (COCO JSON, PASCAL VOC XML, or mask PNGs)")
    known = None
    if annotations is not None:
        from attrsens.engine.annotations import Annotations

        known = Annotations(annotations)
    return Judging(scores, similarities, known, calibrate)


def judging_config(judging: Judging, annotations: str | Path | None) -> dict[str, Any]:
    """What the report states of it."""
    return {
        "metrics": [call.expression for call in (*judging.scores, *judging.similarities)],
        "annotations": printable(str(annotations)) if annotations is not None else None,
        "calibrate": judging.calibrate,
    }


def _resolved(classifier: Classifier) -> dict[str, Any]:
    """What a model turned out to be."""
    c = classifier
    facts = {"architecture": c.architecture, "layout": c.layout, "preprocess": c.preprocess.describe()}
    return {"name": c.name, "id": c.id, **facts}


def texts(value: Any) -> list[str]:
    if value is None:
        return []
    items: Iterable[Any] = value if isinstance(value, (list, tuple)) else [value]
    return [str(item) for item in items]
