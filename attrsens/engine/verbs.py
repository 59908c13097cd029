"""The commands as functions: the Python API, and what the command line calls."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.engine.cell import choose_method, parse_calls
from attrsens.engine.inputs import Truth, expand, printable
from attrsens.engine.plan import check, peak_memory
from attrsens.engine.report import PassInfo, Provenance, Report
from attrsens.engine.run import Request, Result, Sink, Tally, run
from attrsens.engine.store import DEFAULT_LIMIT, Store
from attrsens.errors import AttrsensError
from attrsens.images import Preprocess
from attrsens.models import zoo
from attrsens.models.devices import check_batch, check_device
from attrsens.models.labels import load_labels

if TYPE_CHECKING:
    from attrsens.models.classifier import Classifier

Progress = Callable[[int, int, int], None]
PACKAGES = ("attrsens", "torch", "torchvision", "numpy", "scipy", "pillow", "safetensors")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; `report` holds what was finished."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


@dataclass(frozen=True)
class Prepared:
    """A request that was checked and its models loaded, with the configuration that the report states.

    Attributes:
        started, begin: when preparing began, as a date and on the monotonic clock.
    """

    request: Request
    config: dict[str, Any]
    store: Store | None
    started: datetime
    begin: float


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
    **parameters: Any,
) -> Prepared:
    """Check everything that can be checked, cheapest first, and load the models.

    Raises:
        AttrsensError: see `explain`.
    """
    started, begin = datetime.now(UTC), time.perf_counter()
    expressions = _texts(method) or [choose_method(parameters)]
    calls = parse_calls(expressions, parameters)
    models: list[Any] = list(model) if isinstance(model, (list, tuple)) else [model]
    files = [isinstance(m, str) and zoo.is_file(zoo.split(m)[0]) for m in models]
    for entry, file in zip(models, files, strict=True):
        if isinstance(entry, str):
            zoo.check_name(entry, arch if file or not any(files) else None)
    if sha256 is not None:
        zoo.check_sha256(sha256)
        if len(models) != 1:
            raise AttrsensError("sha256 pins one model's weights; give one --model")
    check_device(device)
    if preprocess:
        Preprocess().updated(preprocess)
    targets = _texts(target)
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
    classifiers = []
    for entry, file in zip(models, files, strict=True):
        for_file = options if file else options | {"arch": None}
        classifiers.append(zoo.load(entry, **how, **for_file) if isinstance(entry, str) else entry)
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
    }
    store = Store(Path(cache_dir) if cache_dir else None, cache_limit) if cache else None
    check(request, store)
    return Prepared(request, config, store, started, begin)


def explain(images: Any = (), **options: Any) -> Report:
    """Heatmaps of images.

    Args:
        images: paths, folders, patterns, "sample:NAME", "FILE.npz", uint8 arrays (H, W, 3) or Pillow images; one or a
            list. Nothing means the first packaged sample.
        model: name, file, `Classifier`, or several of them.
        method: method expressions such as "sg:n=50"; without any, the method that has the parameters given, else grad.
        target: "top1", "true", a class index or name, or several of them.
        labels: "folders" or a csv file of (file, class); npz archives carry their own.
        only_correct: leave out images whose top-1 is not their label.
        arch, preprocess, classes, sha256: for models from files (see `attrsens.load`).
        device, precision, fold, batch: how passes are run (see `Classifier`).
        limit: use only the first images. frame: of animated files.
        offline: never download weights.
        cache, cache_dir, cache_limit: the store of finished results.
        **parameters: of the methods, such as n=50; each goes to every method that has it.

    Returns:
        The report; `report.attributions` holds the maps in the order of `report.records`.

    Raises:
        AttrsensError: unknown names, bad values, missing files, models that cannot be loaded: before any work.
        Interrupted: Ctrl-C; it carries the report of what was finished.
    """
    return execute(prepare(images, **options))


def execute(prepared: Prepared, *, sink: Sink | None = None, progress: Progress | None = None) -> Report:
    """Run a prepared request.

    Args:
        sink: is handed the results of each image as they are ready, instead of the report's `attributions`.
        progress: called with (images x models done, all of them, passes made) after every batch.

    Raises:
        Interrupted: Ctrl-C; it carries the report of what was finished.
        AttrsensError: the sink could not take a result; `report` holds what was finished before.
    """
    request = prepared.request
    tally = Tally()
    results: list[Result] = []
    records = []
    total, done, passes = len(request.sources) * len(request.classifiers), 0, 0
    stopped: KeyboardInterrupt | AttrsensError | None = None

    def tick(images: int) -> None:
        nonlocal passes
        passes += images
        if progress:
            progress(done, total, passes)

    for classifier in request.classifiers:
        classifier.on_batch(tick)
    try:
        for part in run(request, prepared.store, tally):
            if sink:
                sink(part)
            else:
                results += part
            records += [record for record, _ in part]
            done += 1
            tick(0)
    except (KeyboardInterrupt, AttrsensError) as error:
        stopped = error
    finally:
        for classifier in request.classifiers:
            classifier.on_batch(None)
    if prepared.store:
        prepared.store.trim()
    provenance = Provenance(
        versions={"python": platform.python_version()} | {p: metadata.version(p) for p in PACKAGES},
        weights={c.id: c.sha256 or "" for c in request.classifiers},
        device=_device_name(request.classifiers[0]),
        threads=_threads(),
        argv=[printable(word) for word in sys.argv],
        started=prepared.started.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - prepared.begin, 3),
        cached_cells=tally.cached_cells,
        damaged_cells=prepared.store.damaged if prepared.store else 0,
        passes_run=PassInfo(tally.passes.forward, tally.passes.backward),
        peak_memory_mb=peak_memory(request.classifiers),
        interrupted=stopped is not None,
    )
    report = Report(
        "explain",
        prepared.config,
        records,
        tally.failures,
        provenance,
        skipped=tally.skipped,
        attributions=[attribution for _, attribution in results],
    )
    if isinstance(stopped, AttrsensError):
        stopped.report = report
        raise stopped
    if stopped:
        raise Interrupted(report)
    return report


def _resolved(classifier: Classifier) -> dict[str, Any]:
    """What a model turned out to be."""
    c = classifier
    facts = {"architecture": c.architecture, "layout": c.layout, "preprocess": c.preprocess.describe()}
    return {"name": c.name, "id": c.id, **facts}


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    items: Iterable[Any] = value if isinstance(value, (list, tuple)) else [value]
    return [str(item) for item in items]


def _device_name(classifier: Classifier) -> str:
    import torch

    if classifier.device.type == "cuda":
        return f"{classifier.device} ({torch.cuda.get_device_name(classifier.device)})"
    return str(classifier.device)


def _threads() -> int:
    import torch

    return torch.get_num_threads()
