"""The verb `train`: data and network found, trained, measured, and written with their card."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrsens.engine.datasets import check_dataset, read_dataset
from attrsens.errors import AttrsensError
from attrsens.params import Value
from attrsens.spec import canonical
from attrsens.training import RECIPES

if TYPE_CHECKING:
    import torch
    from torch import nn

    from attrsens.training.data import Data
    from attrsens.training.evaluate import Budget
    from attrsens.training.run import Course, Job, Progress

log = logging.getLogger("attrsens")

HELD_OUT, SHARE = 1000, 0.02  # images that training does not see: so many, at most this share
FAMILY, WIDTH = "preact-resnet", 32
Tick = Callable[["Progress"], None]


@dataclass(frozen=True)
class Request:
    """What was asked for, checked as far as that needs neither torch nor data.

    Attributes:
        start: the network that is continued.
        val: the data set that accuracies are measured on; None: the held-out part of the training data.
        budgets: (norm, eps) of the adversaries; the first also watches while training.
        attacked: how many images the adversaries see.
    """

    dataset: str
    recipe: str
    parameters: dict[str, Value]
    arch: str
    start: str | None = None
    start_arch: str | None = None
    val: str | None = None
    val_limit: int | None = None
    budgets: tuple[tuple[str, float], ...] = ()
    attacked: int = 1000
    held_out: int | None = None
    size: int | None = None
    limit: int | None = None
    classes: str | None = None
    precision: str = "auto"
    device: str = "auto"
    offline: bool = False
    out: Path = Path("attrsens-out")
    name: str = ""
    force: bool = False


@dataclass
class Training:
    """What a training came to, for JSON.

    Attributes:
        fresh: whether anything was computed now.
        files: model, card and report, relative to the folder.
        curves: one row an epoch.
    """

    schema_version: int
    command: str
    config: dict[str, Any]
    model: dict[str, Any]
    curves: list[dict[str, Any]]
    fallbacks: list[dict[str, Any]]
    accuracy: list[dict[str, Any]]
    files: dict[str, str]
    provenance: dict[str, Any] = field(default_factory=dict)
    fresh: bool = True


def train(request: Request, tick: Tick = lambda progress: None, step: Callable[[str], None] = lambda text: None) -> Training:
    """Train, or go on from the checkpoint, or say that it is done.

    Args:
        tick: told of every training step. step: of every other one, in words.

    Raises:
        AttrsensError: before any work; InputError: training diverged, or a picture cannot be decoded.
    """
    from attrsens.models.devices import keep_memory, pick_device
    from attrsens.training.precision import pick_precision
    from attrsens.training.run import Trainer

    device = pick_device(request.device)
    keep_memory(device.type)
    precision = pick_precision(request.precision, device)
    step(f"reading {request.dataset}")
    data = read_dataset(
        request.dataset, size=request.size, classes=request.classes, limit=request.limit, offline=request.offline
    )
    held = request.held_out if request.held_out is not None else min(HELD_OUT, round(SHARE * len(data)))
    if not 0 < held < len(data):
        raise AttrsensError(f"held-out must leave images to train on: {held} of {len(data)}")
    seed = int(request.parameters["seed"])
    rest, kept = data.split(held, seed)
    module, arch, mean, std, start = _network(request, data, rest, device)
    job = _job(request, precision, data, held, arch, mean, std, start)
    paths = {k: request.out / f"{request.name}{s}" for k, s in SUFFIXES.items()}
    done = _finished(request, job, paths)
    if done:
        return done
    trainer = Trainer(job, module, rest, kept, paths["checkpoint"], tick)
    weights, course = trainer.run()
    module.load_state_dict(weights)
    step("measuring")
    val = kept
    if request.val:
        val = read_dataset(
            request.val, train=False, size=request.size, classes=request.classes, limit=request.val_limit,
            offline=request.offline,
        )  # fmt: skip
        _check_classes(request, data, val)
    accuracy = _measured(request, job, module, val, step)
    return _written(request, job, module, data, held, val, course, accuracy, start, paths, device)


SUFFIXES = {
    "model": ".safetensors",
    "card": ".md",
    "report": ".json",
    "checkpoint": ".checkpoint",
}


def _network(
    request: Request, data: Data, rest: Data, device: torch.device
) -> tuple[nn.Module, str, tuple[float, ...], tuple[float, ...], dict[str, Any] | None]:
    """(network to train, its architecture, mean, std, what it starts from)."""
    import copy

    import torch

    from attrsens.models import zoo
    from attrsens.models.architectures import find_architecture
    from attrsens.models.checkpoints import payload_hash
    from attrsens.models.outputs import check_logits
    from attrsens.models.surgery import core_of

    if request.start:
        source = zoo.load(
            request.start, arch=request.start_arch, device=str(device), fold=False, offline=request.offline
        )
        module = copy.deepcopy(core_of(source.network)).requires_grad_(True)
        side = data.images.shape[1]
        if source.preprocess.crop not in (None, side) or source.class_count != len(data.classes):
            raise AttrsensError(
                f"from {request.start}: {source.class_count} classes at {source.preprocess.crop} px; the data set has "
                f"{len(data.classes)} at {side} px"
            )
        told = {"name": source.name, "sha256": payload_hash(module.state_dict())}
        steps = source.preprocess
        return module.to(memory_format=torch.channels_last), source.architecture, steps.mean, steps.std, told  # type: ignore[call-overload]
    seed = int.from_bytes(hashlib.blake2b(f"{request.parameters['seed']}\ninit".encode(), digest_size=7).digest())
    with torch.random.fork_rng(devices=[]):  # its authors' own initial weights, drawn by our seed; nothing else sees it
        torch.default_generator.manual_seed(seed)
        module = find_architecture(request.arch).build(len(data.classes)).float()
    module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = rest.statistics()
    with torch.no_grad():
        x, _ = data.pixels(slice(0, 2), device)
        try:
            check_logits(module.eval()(x), len(x), request.arch, None)
        except RuntimeError as error:
            raise AttrsensError(f"architecture {request.arch} takes no pictures of {x.shape[-1]} px: {error}") from None
    return module, request.arch, mean, std, None


def _job(
    request: Request,
    precision: str,
    data: Data,
    held: int,
    arch: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    start: dict[str, Any] | None,
) -> Job:
    from attrsens.training.evaluate import Budget
    from attrsens.training.run import Job

    norm, eps = request.budgets[0]
    identity = {
        "recipe": request.recipe,
        "version": RECIPES[request.recipe].version,
        "parameters": request.parameters,
        "architecture": arch,
        "precision": precision,
        "budget": [norm, eps],
        "data": data.sha256,
        "held_out": held,
        "start": start["sha256"] if start else None,
    }
    identity = json.loads(canonical(identity))
    return Job(request.recipe, request.parameters, Budget(norm, eps), mean, std, precision, identity)


def _check_classes(request: Request, data: Data, val: Data) -> None:
    if val.classes != data.classes or val.images.shape[1:] != data.images.shape[1:]:
        raise AttrsensError(
            f"val {request.val}: {len(val.classes)} classes at {val.images.shape[1]} px; {request.dataset} has "
            f"{len(data.classes)} at {data.images.shape[1]} px; names, order and size must agree"
        )


def _evaluation(request: Request) -> dict[str, Any]:
    """What accuracies were asked for."""
    return {"val": request.val, "limit": request.val_limit, "attacked": request.attacked, "budgets": [list(b) for b in request.budgets]}  # fmt: skip


def _finished(request: Request, job: Job, paths: Mapping[str, Path]) -> Training | None:
    """The report of a training that is done; None where there is something to do.

    Raises:
        AttrsensError: another training's model lies there.
    """
    from attrsens.models.cards import read_card

    if request.force:
        for path in paths.values():
            path.unlink(missing_ok=True)
    if not paths["model"].exists():
        return None
    card = read_card(paths["model"])
    if card is None or card.told.get("identity") != _digest(job.identity):
        raise AttrsensError(
            f"{paths['model']} is of another training; choose another --out or --name, or --force to replace it"
        )
    try:
        told = json.loads(paths["report"].read_text())
        if told["config"]["evaluation"] != _evaluation(request):
            return None
        return Training(**{**told, "fresh": False})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the weights are there; they are measured again


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(identity).encode()).hexdigest()


def _measured(
    request: Request, job: Job, module: nn.Module, val: Data, step: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Accuracies in float32: of all images as they are, of the first under each adversary."""
    from attrsens.training.evaluate import Budget, autopgd_accuracy, clean_accuracy, pgd_accuracy
    from attrsens.training.learner import Learner

    net = Learner(module, job.mean, job.std)
    some = val.part(slice(0, request.attacked))
    out = [{"kind": "clean", "norm": None, "eps": None, "n": len(val), "value": clean_accuracy(net, val)}]
    for norm, eps in request.budgets:
        budget = Budget(norm, eps)
        for kind, run in (("PGD-20", lambda b: pgd_accuracy(net, some, b, 20)), ("AutoPGD", lambda b: autopgd_accuracy(net, some, b))):  # fmt: skip
            step(f"measuring {kind} at {norm} {eps:.4g}")
            out.append({"kind": kind, "norm": norm, "eps": eps, "n": len(some), "value": run(budget)})
    return out


def _written(
    request: Request,
    job: Job,
    module: nn.Module,
    data: Data,
    held: int,
    val: Data,
    course: Course,
    accuracy: list[dict[str, Any]],
    start: dict[str, Any] | None,
    paths: Mapping[str, Path],
    device: torch.device,
) -> Training:
    """Write weights with their card, the card for people, and the report."""
    import torch
    from safetensors.torch import save

    from attrsens.images import Preprocess
    from attrsens.models.cards import write_card
    from attrsens.training.card import readable
    from attrsens.training.checkpoint import replace_file

    side = data.images.shape[1]
    spec = RECIPES[request.recipe]
    card: dict[str, Any] = {
        "name": request.name,
        "identity": _digest(job.identity),
        "architecture": job.identity["architecture"],
        "parameters": sum(p.numel() for p in module.parameters()),
        "preprocess": Preprocess(side, side, mean=job.mean, std=job.std).describe(),
        "classes": list(data.classes),
        "recipe": {
            "name": spec.name,
            "version": spec.version,
            "parameters": request.parameters,
            "fallbacks": course.fallbacks,
        },
        "start": start,
        "data": {"name": data.name, "sha256": data.sha256, "images": len(data) - held, "held_out": held},
        "validation": {"name": val.name, "sha256": val.sha256, "images": len(val)},
        "accuracy": accuracy,
        "precision": job.precision,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "versions": {"attrsens": version("attrsens"), "torch": torch.__version__},
    }
    weights = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    replace_file(paths["model"], save(weights, write_card(card)))
    replace_file(paths["card"], readable(card, course.seconds, course.curves).encode())
    config = {"dataset": request.dataset, "recipe": request.recipe, **request.parameters}
    config |= {"arch": job.identity["architecture"], "from": request.start, "evaluation": _evaluation(request)}
    found = Training(
        1, "train", config, card, course.curves, course.fallbacks, accuracy,
        {kind: path.name for kind, path in paths.items()},
        {"seconds": course.seconds},
    )  # fmt: skip
    replace_file(paths["report"], (json.dumps(found.__dict__, indent=1) + "\n").encode())
    return found
