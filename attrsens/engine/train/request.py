"""What a training was asked for, checked as far as that needs neither torch nor data."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from attrsens.engine.datasets import NAMES, check_dataset, title
from attrsens.errors import AttrsensError, unknown
from attrsens.models import zoo
from attrsens.models.architectures import check_arch
from attrsens.models.devices import check_device
from attrsens.models.labels import load_labels
from attrsens.models.nets import net_names
from attrsens.params import Value
from attrsens.training import RECIPES

FAMILY, WIDTH = "preact-resnet", 32
BUDGET = ("linf", 2 / 255)  # of the adversary that watches where the recipe has none of its own
NORMS = ("linf", "l2")
SUFFIXES = {"model": ".safetensors", "card": ".md", "report": ".json", "checkpoint": ".checkpoint"}
LONGEST = 200  # bytes of a name, so that no file's is too long for a file system


@dataclass(frozen=True)
class Request:
    """A training that could be done.

    Attributes:
        parameters: of the recipe, complete.
        arch: of the network; of the file `start` where that is given, None for the one that fits.
        start: the network that is continued.
        val: the data set that accuracies are measured on; None: the held-out part of the training data.
        budgets: (norm, eps) of the adversaries; the first also watches the training.
        attacked: how many images the adversaries see at the end.
        held_out: how many training images are kept for the curves; None: a fiftieth, 1000 at most.
        limit, val_limit: use only so many images.
    """

    dataset: str
    recipe: str
    parameters: dict[str, Value]
    arch: str | None
    start: str | None
    val: str | None
    budgets: tuple[tuple[str, float], ...]
    attacked: int
    held_out: int | None
    size: int | None
    limit: int | None
    val_limit: int | None
    classes: str | None
    precision: str
    device: str
    offline: bool
    out: Path
    name: str
    force: bool

    @property
    def evaluation(self) -> dict[str, Any]:
        """What accuracies were asked for, as plain values."""
        budgets = [list(budget) for budget in self.budgets]
        return {"val": self.val, "limit": self.val_limit, "attacked": self.attacked, "budgets": budgets}

    def path(self, suffix: str) -> Path:
        return self.out / f"{self.name}{suffix}"


def request(
    dataset: str,
    recipe: str = "std",
    parameters: Mapping[str, object] = {},
    *,
    arch: str | None = None,
    width: int | None = None,
    start: str | None = None,
    val: str | None = None,
    budgets: Sequence[str] = (),
    attacked: int = 1000,
    held_out: int | None = None,
    size: int | None = None,
    limit: int | None = None,
    val_limit: int | None = None,
    classes: str | None = None,
    precision: str = "auto",
    device: str = "auto",
    offline: bool = False,
    out: Path | str = "attrsens-out",
    name: str | None = None,
    force: bool = False,
) -> Request:
    """A checked request.

    Args:
        recipe: a name, or name:parameter=value,...
        parameters: where the expression is silent.
        width: first channels of our own architecture, instead of `arch`.
        budgets: NORM:EPS, such as linf:8/255.

    Raises:
        AttrsensError: says what is wrong and what would do.
    """
    spec, complete = RECIPES.parse(recipe, parameters)
    for parameter in parameters:
        if parameter not in complete:
            have = ", ".join(RECIPES.owners(parameter)) or "none"
            raise AttrsensError(f"{spec.name} has no parameter {parameter!r}; recipes that have it: {have}")
    check_dataset(dataset)
    if val is not None:
        check_dataset(val)
    if val is None and dataset in NAMES:
        val = dataset  # its own test images
    check_device(device)
    if precision not in ("auto", "fp32", "bf16"):
        raise AttrsensError(f"precision must be auto, fp32 or bf16; got {precision!r}")
    if classes:
        load_labels(classes)
    if spec.traits["start"] and not start:
        raise AttrsensError(f"recipe {spec.name} continues a trained network; name it with --from")
    if start:
        zoo.check_name(start, arch)
    if width is not None and (arch or start):
        raise AttrsensError(f"width is of {FAMILY}; with {'--from' if start else '--arch'} the network has its own")
    arch = arch if arch or start else f"{FAMILY}{width or WIDTH}"
    if width is not None and arch not in net_names():
        known = sorted((n for n in net_names() if n.startswith(FAMILY)), key=len)
        raise AttrsensError(f"width {width}: {FAMILY} comes in {', '.join(n.removeprefix(FAMILY) for n in known)}")
    if arch:
        check_arch(arch)
        if arch.startswith("py:"):
            raise AttrsensError(
                f"architecture {arch}: a model card cannot name your own code; use a named architecture"
            )
    plain = re.sub(r"[^\w.-]+", "-", title(dataset)).lstrip(".-")[:100]
    name = name or f"{plain or 'data'}-{spec.name}"
    if not re.fullmatch(r"\w[\w.-]*", name) or len(os.fsencode(name)) > LONGEST:
        raise AttrsensError(
            f"name {name[:60]!r}: letters, digits, dots, dashes and underscores, {LONGEST} bytes at most"
        )
    _check_files(Path(out), name, force)
    own = [(str(complete["norm"]), float(complete["eps"]))] if "eps" in complete else [BUDGET]
    return Request(
        dataset=dataset,
        recipe=spec.name,
        parameters=complete,
        arch=arch,
        start=start,
        val=val,
        budgets=tuple([_budget(text) for text in budgets] or own),
        attacked=attacked,
        held_out=held_out,
        size=size,
        limit=limit,
        val_limit=val_limit,
        classes=classes,
        precision=precision,
        device=device,
        offline=offline,
        out=Path(out),
        name=name,
        force=force,
    )


def _check_files(out: Path, name: str, force: bool) -> None:
    """Raise if the files cannot lie there, or would replace what is none of ours.

    Raises:
        AttrsensError: names what is in the way.
    """
    above = next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder))
    if not above.is_dir():
        raise AttrsensError(f"out: {out} cannot be written (Not a directory); choose another --out")
    for kind, suffix in SUFFIXES.items():
        path = out / f"{name}{suffix}"
        if path.is_dir():
            raise AttrsensError(f"{path} cannot be written (a folder); choose another --name or --out")
        if not force and os.path.lexists(path) and not _ours(path, kind, name):
            raise AttrsensError(
                f"{path} was not written by attrsens train; choose another --name or --out, or --force to replace it"
            )


def _ours(path: Path, kind: str, name: str) -> bool:
    """Whether a card for people, or a report, looks like one of ours; what else there is has checks of its own."""
    if kind not in ("card", "report"):
        return True
    try:
        text = path.read_text(encoding="utf-8")
        return text.startswith(f"# {name}\n\n| | |\n") if kind == "card" else json.loads(text)["command"] == "train"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _budget(text: str) -> tuple[str, float]:
    norm, colon, number = text.partition(":")
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    try:
        eps = float(Fraction(number)) if "/" in number else float(number)
    except (ValueError, ZeroDivisionError):
        eps = math.nan
    if not (colon and 0 <= eps < math.inf):
        raise AttrsensError(f"budget {text!r}: write NORM:EPS in pixels from 0 to 1, such as linf:8/255 or l2:0.5")
    return norm, eps
