"""The training loop: steps, an evaluation at the end of every epoch, the guard, checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attrsens.errors import AttrsensError, InputError
from attrsens.params import Value
from attrsens.training import RECIPES
from attrsens.training.checkpoint import copied, load_state, no_checkpoint, prefixed, save_state, under
from attrsens.training.data import Batches, Data
from attrsens.training.draws import drawing
from attrsens.training.evaluate import Budget, all_finite, clean_accuracy, pgd_accuracy
from attrsens.training.guard import collapsed
from attrsens.training.learner import Learner
from attrsens.training.state import State, learning_rate

log = logging.getLogger("attrsens")

SAVED_EVERY = 60.0  # seconds between checkpoints within an epoch
WATCHED = 512  # held-out images that the adversary sees at the end of an epoch
WATCH_STEPS = 10  # of its PGD


@dataclass(frozen=True)
class Progress:
    """Where a training is: counted from 1, losses averaged over the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    clean: float | None
    adversarial: float | None


@dataclass(frozen=True)
class Job:
    """What decides the weights that come out, besides the machine.

    Attributes:
        parameters: the recipe's, complete.
        budget: of the adversary that watches, and of a guarded recipe.
        identity: plain values: all of this, the data and the network it starts from.
    """

    recipe: str
    parameters: dict[str, Value]
    budget: Budget
    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: str
    identity: dict[str, Any]


@dataclass
class Course:
    """What happened so far, as plain values.

    Attributes:
        curves: one row an epoch: epoch, loss, clean and adversarial accuracy of the averaged weights on the held-out
            images; `guarded` of the weights themselves, where a guard watches.
        fallbacks: where the guard took over.
        recipe, parameters: those that run now.
        best: the guard's best adversarial accuracy; `good`, `good_sums`: the step it was last not alarmed at.
    """

    recipe: str
    parameters: dict[str, Value]
    curves: list[dict[str, Any]] = field(default_factory=list)
    fallbacks: list[dict[str, Any]] = field(default_factory=list)
    best: float = 0.0
    good: int = 0
    seconds: float = 0.0


class Trainer:
    """One training.

    Args:
        module: trained in place.
        checkpoint: the file to go on from, if it is there, and to write.
        tick: told of every step.
    """

    def __init__(
        self,
        job: Job,
        module: nn.Module,
        train: Data,
        held: Data,
        checkpoint: Path,
        tick: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        p = job.parameters
        self.job, self.held, self.path, self.tick = job, held, checkpoint, tick
        self.watched = held.sample(WATCHED)
        self.net = Learner(module, job.mean, job.std, job.precision, float(p["smoothing"]))
        self.batches = Batches(
            train, int(p["batch"]), int(p["epochs"]), int(p["seed"]), bool(p["augment"]), self.net.device
        )
        self.state = State(module, p)
        self.course = Course(job.recipe, dict(p))
        self.total = self.batches.total
        self._good: dict[str, Tensor] = copied(self.state.tensors())
        self._guard = RECIPES[job.recipe].traits.get("guard")

    def run(self) -> tuple[dict[str, Tensor], Course]:
        """(state dict, what happened), from the checkpoint on if there is one.

        Raises:
            AttrsensError: the checkpoint is of another training. InputError: the loss is no number.
        """
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            return self._run()

    def _run(self) -> tuple[dict[str, Tensor], Course]:
        self._resume()
        saved = started = time.monotonic()
        earlier = self.course.seconds
        while self.state.step < self.total:
            try:
                self._step()
            except RuntimeError as error:
                if "without overflow" not in str(error):
                    raise
                raise InputError("a setting is too large for numbers of 32 bits; try smaller ones") from None
            over = self.state.step % self.batches.steps == 0
            self.course.seconds = earlier + time.monotonic() - started
            if over:
                self._end_epoch()
            if over or time.monotonic() - saved > SAVED_EVERY:
                self._save()
                saved = time.monotonic()
        return self.state.result(), self.course

    def _step(self) -> None:
        state, course = self.state, self.course
        batch = self.batches[state.step]
        spec = RECIPES[course.recipe]
        own = {h.name: course.parameters[h.name] for h in spec.own()}
        with drawing(batch.seed, f"step {state.step}", self.net.device):
            loss = spec.function(self.net, batch, **own)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise diverged(f"the loss of step {state.step + 1} is {value}")
            state.descend(loss, learning_rate(state.step, self.total, float(self.job.parameters["lr"])))
        state.sums = [state.sums[0] + value, state.sums[1] + 1]
        last = course.curves[-1] if course.curves else {}
        epochs = int(self.job.parameters["epochs"])
        steps = self.batches.steps
        before, done = divmod(batch.step, steps)
        mean = state.sums[0] / state.sums[1]
        self.tick(Progress(before + 1, epochs, done + 1, steps, mean, last.get("clean"), last.get("adversarial")))

    def _end_epoch(self) -> None:
        """Evaluate; let the guard look; keep the state as good, or go back to the last good one."""
        state, course = self.state, self.course
        row: dict[str, Any] = {"epoch": state.step // self.batches.steps, "loss": state.sums[0] / state.sums[1]}
        with state.averaged():
            if state.step == self.total and not all_finite(self.net, self.held):
                raise diverged("its weights, or what they give for held-out images, are not finite")
            row["clean"] = clean_accuracy(self.net, self.held)
            row["adversarial"] = pgd_accuracy(self.net, self.watched, self.job.budget, WATCH_STEPS)
        state.sums = [0.0, 0.0]
        course.curves.append(row)
        if self._guard is None or course.recipe != self.job.recipe:
            return
        row["guarded"] = pgd_accuracy(self.net, self.watched, self.job.budget, WATCH_STEPS)
        if not collapsed(row["guarded"], course.best, len(self.watched)):
            course.best = max(course.best, row["guarded"])
            course.good, self._good = state.step, copied(state.tensors())
            return
        name, changes = self._guard
        spec = RECIPES[name]
        same = {h.name: course.parameters[h.name] for h in spec.hypers if h.name in course.parameters}
        course.recipe, course.parameters = name, spec.complete(same | {"step_size": 0.0} | changes)
        lost = {"epoch": row["epoch"], "accuracy": row["guarded"], "best": course.best, "from_step": course.good}
        course.fallbacks.append({**lost, "recipe": name, **changes})
        state.restore(self._good, course.good, [0.0, 0.0])

    def _save(self) -> None:
        course, tensors = self.course, self.state.tensors()
        if self._guard is not None and course.recipe == self.job.recipe:
            tensors |= prefixed("good", self._good)
        facts: dict[str, Any] = {"identity": self.job.identity, "machine": _machine()}
        facts |= {"step": self.state.step, "sums": self.state.sums}
        save_state(self.path, tensors, facts | {"course": course.__dict__})

    def _resume(self) -> None:
        found = load_state(self.path)
        if found is None:
            return
        tensors, facts = found
        differing = [k for k, v in self.job.identity.items() if facts["identity"].get(k) != v]
        if differing:
            raise AttrsensError(
                f"{self.path}: the checkpoint of another training (it differs in {', '.join(differing)}); "
                "choose another --out or --name, or remove it"
            )
        try:
            begun = self._take(tensors, facts)
        except (AttrsensError, KeyError, TypeError, ValueError, AttributeError) as error:  # made by another hand
            raise no_checkpoint(self.path, error) from None
        moved = [f"{k} {v} instead of {begun[k]}" for k, v in _machine().items() if begun.get(k, v) != v]
        if moved:
            log.warning("%s: goes on with %s: the weights will differ in rounding", self.path, ", ".join(moved))

    def _take(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> dict[str, Any]:
        """Go on from what a checkpoint holds, if that is whole; the machine it was made on.

        Raises:
            ValueError, KeyError, ...: it is not.
        """
        course, step, (loss, steps) = Course(**facts["course"]), facts["step"], facts["sums"]
        guarded = self._guard is not None and course.recipe == self.job.recipe
        if not guarded and course.recipe not in (self.job.recipe, self._guard and self._guard[0]):
            raise ValueError("of another recipe")
        if RECIPES[course.recipe].complete(course.parameters) != course.parameters:
            raise ValueError("its parameters are incomplete")
        if type(step) is not int or not 0 <= step <= self.total or not 0 <= course.good <= step:
            raise ValueError("its step is none of this training")
        kinds = {name: (t.shape, t.dtype) for name, t in self.state.tensors().items()}
        kinds |= {f"good.{name}": kind for name, kind in kinds.items()} if guarded else {}
        if {name: (t.shape, t.dtype) for name, t in tensors.items()} != kinds:
            raise ValueError("its tensors are not those of this network")
        self.state.restore(tensors, step, [float(loss), int(steps)])
        self.course = course
        self._good = under("good", tensors) if guarded else self._good
        return dict(facts["machine"])


def diverged(what: str) -> InputError:
    """The error of a training that led nowhere."""
    return InputError(f"training diverged: {what}; try a smaller --lr, with --force or under another --name")


def _machine() -> dict[str, Any]:
    """What rounding depends on besides the job."""
    return {"torch": str(torch.__version__), "threads": torch.get_num_threads()}
