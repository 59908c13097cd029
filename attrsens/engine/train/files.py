"""The files of a training: weights with their card, the card for people, the report."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from attrsens.engine.train.request import Request
from attrsens.errors import AttrsensError
from attrsens.images import Preprocess
from attrsens.models.cards import read_card, write_card
from attrsens.spec import canonical
from attrsens.training.card import readable
from attrsens.training.checkpoint import replace_file
from attrsens.training.data import Data
from attrsens.training.run import Course, Job

log = logging.getLogger("attrsens")

SUFFIXES = {"model": ".safetensors", "card": ".md", "report": ".json", "checkpoint": ".checkpoint"}


def make_card(
    request: Request, job: Job, module: nn.Module, steps: Preprocess, start: Mapping[str, Any] | None, data: Data,
    held: int, val: Data, accuracy: list[dict[str, Any]], course: Course,
) -> dict[str, Any]:  # fmt: skip
    """What is told of the network, as plain values; nothing in it depends on the clock."""
    recipe = {
        "name": request.recipe,
        "version": job.identity["version"],
        "parameters": request.parameters,
        "fallbacks": course.fallbacks,
    }
    return {
        "name": request.name,
        "identity": digest(job),
        "architecture": job.identity["architecture"],
        "parameters": sum(p.numel() for p in module.parameters()),
        "preprocess": steps.describe(),
        "classes": list(data.classes),
        "recipe": recipe,
        "start": start,
        "data": {"name": data.name, "sha256": data.sha256, "images": len(data) - held, "held_out": held},
        "validation": {"name": val.name, "sha256": val.sha256, "images": len(val)},
        "accuracy": accuracy,
        "precision": job.precision,
        "device": next(module.parameters()).device.type,
        "threads": torch.get_num_threads(),
        "versions": {"attrsens": version("attrsens"), "torch": str(torch.__version__)},
    }


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
    """Hash of everything that decides the weights."""
    return hashlib.sha256(canonical(job.identity).encode()).hexdigest()


def forget(request: Request) -> None:
    """Remove what an earlier training of this name left (`--force`)."""
    for suffix in SUFFIXES.values():
        request.path(suffix).unlink(missing_ok=True)


def finished(request: Request, job: Job) -> dict[str, Any] | None:
    """The report of this training where it is done and measured as asked; None where there is something to do.

    Raises:
        AttrsensError: the model of another training lies there.
    """
    path = request.path(SUFFIXES["model"])
    if not path.exists():
        return None
    card = read_card(path)
    if card is None or card.told.get("identity") != digest(job):
        raise AttrsensError(f"{path} is of another training; choose another --out or --name, or --force to replace it")
    try:
        report: dict[str, Any] = json.loads(request.path(SUFFIXES["report"]).read_text(encoding="utf-8"))
        return report if report["config"]["evaluation"] == request.evaluation else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is measured and written again


def trained(request: Request) -> tuple[dict[str, Tensor], Course] | None:
    """(weights, what happened) of a finished training whose checkpoint is gone, as `finished` has let it pass."""
    path = request.path(SUFFIXES["model"])
    if not path.exists() or request.path(SUFFIXES["checkpoint"]).exists():
        return None
    course = Course(request.recipe, dict(request.parameters))
    try:
        report = json.loads(request.path(SUFFIXES["report"]).read_text(encoding="utf-8"))
        course.curves, course.fallbacks = report["curves"], report["fallbacks"]
        course.seconds = report["provenance"]["seconds"]
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s: its report is lost; the curves are not known any more", path)
    return load_file(path), course


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
    path = request.out / f".{request.name}.lock"
    request.out.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AttrsensError(f"{request.out / request.name}: another process trains it now") from None
        try:
            yield
        finally:
            os.unlink(path)  # noqa: PTH108 (held open until the lock goes)
