"""The files of a training: weights with their card, the card for people, the report."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from attrsens.engine.train.request import SUFFIXES, Request
from attrsens.errors import AttrsensError
from attrsens.models.cards import read_card, write_card
from attrsens.spec import canonical
from attrsens.training.card import readable
from attrsens.training.checkpoint import replace_file
from attrsens.training.data import Data
from attrsens.training.run import Course, Job

log = logging.getLogger("attrsens")

TOLD = ("classes", "preprocess")  # of what decides the weights: in the card itself, besides its hash


def make_card(
    request: Request, job: Job, module: nn.Module, start: Mapping[str, Any] | None, data: Data, held: int,
    fallbacks: list[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """How a network was made, as plain values; nothing in it depends on the clock."""
    recipe = {
        "name": request.recipe,
        "version": job.identity["version"],
        "parameters": request.parameters,
        "fallbacks": fallbacks,
    }
    return {
        "name": request.name,
        "identity": digest(job),
        "architecture": job.identity["architecture"],
        "parameters": sum(p.numel() for p in module.parameters()),
        "recipe": recipe,
        "start": start,
        "data": {"name": data.name, "sha256": data.sha256, "images": len(data) - held, "held_out": held},
        "precision": job.precision,
        "device": next(module.parameters()).device.type,
        "threads": torch.get_num_threads(),
        "versions": {"attrsens": version("attrsens"), "torch": str(torch.__version__)},
        **{name: job.identity[name] for name in TOLD},
    }


def measured_on(val: Data, accuracy: list[dict[str, Any]]) -> dict[str, Any]:
    """The rest of the card: how good it is, and on what."""
    return {"validation": {"name": val.name, "sha256": val.sha256, "images": len(val)}, "accuracy": accuracy}


def write_files(request: Request, module: nn.Module, card: dict[str, Any], course: Course) -> None:
    """Weights and both cards; each file is replaced as a whole."""
    weights = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    replace_file(request.path(SUFFIXES["model"]), save(weights, write_card(card)))
    replace_file(request.path(SUFFIXES["card"]), readable(card, course.seconds, course.curves).encode())


def write_report(request: Request, report: Mapping[str, Any]) -> None:
    """The report; with it the training is done, and its checkpoint goes."""
    replace_file(request.path(SUFFIXES["report"]), (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())
    request.path(SUFFIXES["checkpoint"]).unlink(missing_ok=True)


def digest(job: Job) -> str:
    """Hash of what decides the weights, but for what the card tells in the open."""
    hidden = {name: value for name, value in job.identity.items() if name not in TOLD}
    return hashlib.sha256(canonical(hidden).encode()).hexdigest()


def forget(request: Request) -> None:
    """Remove what an earlier training of this name left (`--force`)."""
    for suffix in SUFFIXES.values():
        request.path(suffix).unlink(missing_ok=True)


def finished(request: Request, job: Job, val: Data) -> dict[str, Any] | None:
    """The report of this training where it is done and measured as asked; None where there is something to do.

    Raises:
        AttrsensError: the model of another training lies there.
    """
    path = request.path(SUFFIXES["model"])
    if not path.exists():
        return None
    card = read_card(path)
    same = {"identity": digest(job), **{name: job.identity[name] for name in TOLD}}
    if card is None or any(card.told.get(name) != value for name, value in same.items()):
        raise AttrsensError(f"{path} is of another training; choose another --out or --name, or --force to replace it")
    try:
        report: dict[str, Any] = json.loads(request.path(SUFFIXES["report"]).read_text(encoding="utf-8"))
        asked = request.evaluation, card.told, val.sha256
        if (report["config"]["evaluation"], report["model"], card.told["validation"]["sha256"]) != asked:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is measured and written again
    request.path(SUFFIXES["checkpoint"]).unlink(missing_ok=True)  # a kill may have left it
    return report


def trained(request: Request) -> tuple[dict[str, Tensor], Course, dict[str, Any]] | None:
    """(weights, what happened, card) of a finished training whose checkpoint is gone, as `finished` has let it pass."""
    path = request.path(SUFFIXES["model"])
    card = read_card(path) if path.exists() and not request.path(SUFFIXES["checkpoint"]).exists() else None
    if card is None:
        return None
    course = Course(request.recipe, dict(request.parameters), fallbacks=card.told["recipe"]["fallbacks"])
    try:
        report = json.loads(request.path(SUFFIXES["report"]).read_text(encoding="utf-8"))
        course.curves, course.seconds = report["curves"], report["provenance"]["seconds"]
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s: its report is lost; the curves are not known any more", path)
    return load_file(path), course, {**card.told, "name": request.name}


@contextmanager
def alone(request: Request) -> Iterator[None]:
    """While active, no other process trains under this name in this folder.

    Raises:
        AttrsensError: one does.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = request.out / f".{request.name}.lock"  # it stays: whoever removed it might remove another's
    try:
        request.out.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise AttrsensError(f"out: {path} cannot be written ({error.strerror}); choose another --out") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AttrsensError(f"{request.out / request.name}: another process trains it now") from None
        yield
