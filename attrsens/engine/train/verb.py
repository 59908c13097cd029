"""The verb itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.engine.datasets import read_dataset
from attrsens.engine.inputs import printable
from attrsens.engine.report import SCHEMA_VERSION
from attrsens.engine.train.request import SUFFIXES, Request, request
from attrsens.errors import AttrsensError
from attrsens.spec import canonical
from attrsens.training import RECIPES

if TYPE_CHECKING:
    import torch

    from attrsens.engine.train.network import Beginning
    from attrsens.training.data import Data
    from attrsens.training.run import Course, Job, Progress

HELD_OUT, SHARE = 1000, 0.02  # images that training does not see: this share, so many at most
STEPS = 20  # of PGD in the model card
Tick = Callable[["Progress"], None]
Say = Callable[[str], None]


@dataclass
class Training:
    """What a training came to; `asdict` of it is the report, of the shape that all commands share.

    Attributes:
        config: every option that decided anything, resolved.
        model: the model card; empty where the training was interrupted.
        curves: one row an epoch: loss, clean and adversarial accuracy on held-out images.
        fallbacks: where the guard against catastrophic overfitting took over.
        accuracy: at the end, by kind of adversary.
        files: relative to the folder.
        provenance: what ran, when and on what; seconds are of the training, `fresh` says whether this call computed.
        records, aggregates, ...: what other commands find; empty.
    """

    config: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    fallbacks: list[dict[str, Any]] = field(default_factory=list)
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    records: list[Any] = field(default_factory=list)
    aggregates: list[Any] = field(default_factory=list)
    comparisons: list[Any] = field(default_factory=list)
    effects: list[Any] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    failures: list[Any] = field(default_factory=list)
    skipped: list[Any] = field(default_factory=list)
    gates: list[Any] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    command: str = "train"

    @property
    def fresh(self) -> bool:
        """Whether anything was computed by the call that returned it."""
        return bool(self.provenance.get("fresh", True))


class Stopped(KeyboardInterrupt):
    """Ctrl-C; `training` is what there was until then."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training


def train(dataset: str | Path, recipe: str = "std", *, tick: Tick | None = None, **settings: Any) -> Training:
    """Train a network on a data set and write it with its model card; a checkpoint of the same training is continued.

    Args:
        dataset: a folder with one folder a class, an npz of `images` and `labels`, or "cifar10".
        recipe: a name or expression, such as "fast:norm=l2,eps=0.5".
        tick: told of every step.
        settings: those of `request`, and parameters of the recipe.

    >>> attrsens.train("pictures.npz", "fast", epochs=10, out="nets", name="robust")  # doctest: +SKIP
    """
    parameters = {name: settings.pop(name) for name in [*settings] if name in RECIPES.parameters()}
    return carry_out(request(str(dataset), recipe, parameters, **settings), tick or (lambda progress: None))


def carry_out(asked: Request, tick: Tick = lambda progress: None, say: Say = lambda text: None) -> Training:
    """Train as requested, or go on, or find that it is done.

    Args:
        tick: told of every step of training. say: told of all other steps, in words.

    Raises:
        AttrsensError: before any work. InputError: training diverged, or a picture cannot be decoded.
        Stopped: Ctrl-C; the checkpoint stays.
    """
    from attrsens.engine.train import files
    from attrsens.engine.train.network import beginning
    from attrsens.models.cards import write_card
    from attrsens.models.devices import keep_memory, pick_device
    from attrsens.training.precision import pick_precision
    from attrsens.training.run import Trainer

    started = datetime.now(UTC)
    device = pick_device(asked.device)
    keep_memory(device.type)
    data = _read(asked, say)
    held = asked.held_out if asked.held_out is not None else max(1, min(HELD_OUT, round(SHARE * len(data))))
    if not 0 < held < len(data):
        raise AttrsensError(f"held-out must leave images on both sides; got {held} of {len(data)}")
    seen, kept = data.split(held, int(asked.parameters["seed"]))
    val = _read_val(asked, data, say) if asked.val else kept
    net = beginning(asked, data, seen, device)
    job = _job(asked, pick_precision(asked.precision, device), data, held, net)
    make_card = partial(files.make_card, asked, job, net.module, net.start, data, held)
    write_card(make_card([]))  # raises where nobody could read it
    with files.alone(asked):
        if asked.force:
            files.forget(asked)
        done = files.finished(asked, job, val)
        if done is not None:
            known = {f.name: done[f.name] for f in fields(Training) if f.name in done}
            return Training(**{**known, "provenance": {**done["provenance"], "fresh": False}})
        trainer = Trainer(job, net.module, seen, kept, asked.path(SUFFIXES["checkpoint"]), tick)
        report = Training(_config(asked, job, held, device), provenance=_provenance(net, device, started))
        try:
            weights, course, card = files.trained(asked) or (*trainer.run(), None)
            net.module.load_state_dict(weights)
            card = card or make_card(course.fallbacks)
            card |= files.measured_on(val, _measured(asked, job, net, val, say))
        except KeyboardInterrupt:
            raise Stopped(_filled(report, asked, {}, trainer.course)) from None
        files.write_files(asked, net.module, card, course)
        files.write_report(asked, asdict(_filled(report, asked, card, course)))
    return report


def _read(asked: Request, say: Say) -> Data:
    say(f"reading {asked.dataset}")
    return read_dataset(
        asked.dataset, size=asked.size, classes=asked.classes, limit=asked.limit, offline=asked.offline
    )  # fmt: skip


def _read_val(asked: Request, data: Data, say: Say) -> Data:
    """The data to measure on.

    Raises:
        AttrsensError: other classes or another size.
    """
    say(f"reading {asked.val}")
    val = read_dataset(
        str(asked.val), train=False, size=asked.size, classes=asked.classes, limit=asked.val_limit,
        offline=asked.offline,
    )  # fmt: skip
    if val.classes != data.classes or val.images.shape[1:] != data.images.shape[1:]:
        raise AttrsensError(
            f"val {asked.val}: {len(val.classes)} classes at {val.images.shape[1]} px; {asked.dataset} has "
            f"{len(data.classes)} at {data.images.shape[1]} px; names, order and size must agree"
        )
    return val


def _job(asked: Request, precision: str, data: Data, held: int, net: Beginning) -> Job:
    from attrsens.training.evaluate import Budget
    from attrsens.training.run import Job

    norm, eps = asked.budgets[0]
    identity = {
        "recipe": asked.recipe,
        "version": RECIPES[asked.recipe].version,
        "parameters": asked.parameters,
        "architecture": net.architecture,
        "precision": precision,
        "budget": [norm, eps],
        "data": data.sha256,
        "held_out": held,
        "start": net.start["sha256"] if net.start else None,
        "classes": list(data.classes),
        "preprocess": net.preprocess.describe(),
    }
    steps = net.preprocess
    budget = Budget(norm, eps)
    return Job(
        asked.recipe, asked.parameters, budget, steps.mean, steps.std, precision, json.loads(canonical(identity))
    )


def _measured(asked: Request, job: Job, net: Beginning, val: Data, say: Say) -> list[dict[str, Any]]:
    """Accuracies in float32: of all images as they are, of some under each adversary."""
    from attrsens.training.evaluate import Budget, autopgd_accuracy, clean_accuracy, pgd_accuracy
    from attrsens.training.learner import Learner

    learner = Learner(net.module, job.mean, job.std)
    some = val.sample(asked.attacked)
    rows: list[dict[str, Any]] = []

    def add(kind: str, budget: Budget | None, n: int, value: float) -> None:
        norm, eps = (budget.norm, budget.eps) if budget else (None, None)
        rows.append({"kind": kind, "norm": norm, "eps": eps, "n": n, "value": value})

    say("measuring accuracy")
    add("clean", None, len(val), clean_accuracy(learner, val))
    for budget in (Budget(*b) for b in asked.budgets):
        say(f"measuring accuracy under PGD and AutoPGD, {budget.norm} {budget.eps:.4g}")
        add(f"PGD-{STEPS}", budget, len(some), pgd_accuracy(learner, some, budget, STEPS))
        add("AutoPGD", budget, len(some), autopgd_accuracy(learner, some, budget))
    return rows


def _config(asked: Request, job: Job, held: int, device: torch.device) -> dict[str, Any]:
    return {
        "dataset": printable(asked.dataset),
        "recipe": asked.recipe,
        **asked.parameters,
        "arch": job.identity["architecture"],
        "from": asked.start,
        "size": asked.size,
        "classes": asked.classes,
        "limit": asked.limit,
        "held_out": held,
        "offline": asked.offline,
        "evaluation": asked.evaluation,
        "device": str(device),
        "precision": job.precision,
    }


def _provenance(net: Beginning, device: torch.device, started: datetime) -> dict[str, Any]:
    from attrsens.engine.verbs import device_name, threads, versions

    return {
        "versions": versions(),
        "weights": {net.start["name"]: net.start["sha256"]} if net.start else {},
        "device": device_name(device),
        "threads": threads(),
        "argv": [printable(word) for word in sys.argv],
        "started": started.isoformat(timespec="seconds"),
        "fresh": True,
    }


def _filled(report: Training, asked: Request, card: dict[str, Any], course: Course) -> Training:
    """The report with what came out; without a card the training was interrupted."""
    kinds = [kind for kind in SUFFIXES if (kind == "checkpoint") != bool(card)]
    report.model, report.accuracy = card, card.get("accuracy", [])
    report.curves, report.fallbacks = course.curves, course.fallbacks
    report.files = {kind: asked.path(SUFFIXES[kind]).name for kind in kinds}
    report.provenance |= {"seconds": course.seconds, "interrupted": not card}
    return report
