"""Can this model be explained, by which methods, and why not: everything that is known before a map is trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from attrsens.engine.cell import parse_call
from attrsens.engine.diagnosis import Diagnosis, FormInfo, Loaded, Speed, Verdict
from attrsens.engine.noise import DEFINITION as NOISE
from attrsens.engine.noise import noise_floor
from attrsens.engine.plan import cost
from attrsens.engine.sanity import DEFINITIONS as SANITY
from attrsens.engine.sanity import sanity
from attrsens.engine.throughput import floor, throughput
from attrsens.errors import AttrsensError
from attrsens.images import decode
from attrsens.models import zoo
from attrsens.samples import Sample, samples
from attrsens.spec import METHODS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attrsens.models.census import Facts
    from attrsens.models.classifier import Classifier

SIDE = 224  # of the pictures, for a model without a crop
FEW = 4  # pictures for gradients and the noise floor
SPEED = 3.0  # seconds to measure throughput in, and again for its floor
DEFINITIONS = {
    "noise_floor": NOISE,
    "sanity.divergence": SANITY["divergence"],
    "sanity.log_probability": SANITY["log_probability"],
    "sanity.right": SANITY["right"],
    "batch_difference": "largest change of a logit when other pictures share the batch, as a fraction of the range of "
    "all pictures' logits; lower is better",
    "gradients": "of the top class's logit with respect to the pixels, over the pictures",
    "speed": "images a second through the network; floor: the bare network's best over batches of 4, 8 and 16",
}
COUPLED = 1e-3  # change of the logits by others in the batch, as a fraction of their range, that is no rounding


def doctor(
    model: str | Classifier = "lite0",
    *,
    arch: str | None = None,
    preprocess: str | None = None,
    classes: str | None = None,
    sha256: str | None = None,
    device: str = "auto",
    offline: bool = False,
    cache: bool = True,
    cache_dir: str | Path | None = None,
    step: Callable[[str], None] = lambda what: None,
) -> Diagnosis:
    """Examine a model: what was loaded, whether it is fed what it was trained on, whether it is repeatable and free of
    batch effects, its activations, gradients, folding, speed, noise floor, and what each method can do with it.

    Args:
        model: a name, a file, or a `Classifier` that was made with fold=False.
        arch, preprocess, classes, sha256, device, offline, cache, cache_dir: as for `attrsens.load`.
        step: told what is examined next.

    Raises:
        AttrsensError: the model cannot be loaded.
    """
    if isinstance(model, str):
        f = zoo.load(
            model, arch=arch, preprocess=preprocess, classes=classes, sha256=sha256, device=device, fold=False,
            offline=offline, cache=cache, cache_dir=cache_dir,
        )  # fmt: skip
    elif model.fold:
        raise AttrsensError("doctor needs a classifier that was made with fold=False")
    else:
        f = model
    return _Examination(f, step).run()


class _Examination:
    """One examination: the classifier, its pictures, and the diagnosis as it grows."""

    def __init__(self, f: Classifier, step: Callable[[str], None]) -> None:
        self.f, self.step = f, step
        self.pixels, self.shown = pictures(f)
        self.few = self.pixels[: max(1, FEW // f.copies)]  # photographs come first
        self.out = Diagnosis(1, _loaded(f), DEFINITIONS)

    def run(self) -> Diagnosis:
        """Every step, with whatever the network raises told as a problem, and the other steps taken all the same."""
        f, out = self.f, self.out
        if f.preprocess.crop is None:
            out.notes.append(f"no crop is set (--preprocess resize=...,crop=...): examined at {SIDE} x {SIDE} pixels")
        self.step("one pass")
        try:
            out.model.classes = f.view().logits(self.pixels[:1]).shape[1]
        except AttrsensError as error:
            out.problems.append(str(error))
            out.methods = [Verdict(name, False, "one pass over a picture fails", None, None, None) for name in METHODS]
            return out
        with f.exact():
            self._try("activations", self._census)
            self._try("batches", self._batches)
            self._try("gradients", self._gradients)
            self._try("what it was trained on", self._sanity)
            self._try("folding and speed", self._speed)
            if out.gradients and out.gradients.state == "ok":
                self._try("noise floor", self._noise)
        self._verdicts()
        return out

    def _try(self, what: str, step: Callable[[], None]) -> None:
        self.step(what)
        try:
            step()
        except (Exception, SystemExit) as error:  # the network may be anybody's
            first = (str(error).splitlines() or [type(error).__name__])[0][:160]
            self.out.problems.append(f"{what} cannot be examined: {first}")

    def _noise(self) -> None:
        self.out.noise_floor = noise_floor(self.f, self.few)

    def _sanity(self) -> None:
        """Of the network inside its wrappers, which is what was trained."""
        from attrsens.models.surgery import core_of

        core = core_of(self.f.network)
        bare = self.f if core is self.f.network else bare_classifier(self.f, core)
        found = self.out.sanity = sanity(bare, self.pixels, self.shown)
        self.out.problems += found.suspicions
        self.out.notes += [f"not checked: {what}" for what in found.unchecked]

    def _batches(self) -> None:
        from attrsens.models.census import batch_difference

        out = self.out
        few = self.few if len(self.few) > 1 else self.pixels[:2]
        out.batch_difference, out.repeatable = batch_difference(self.f, few)
        if not out.repeatable:
            out.problems.append("the same batch gives other logits the second time: something in it draws at random")
        elif out.batch_difference > COUPLED:
            out.problems.append(
                f"an image's logits change by {out.batch_difference:.1e} of their range with others in its batch: maps "
                "would depend on the batch"
            )

    def _census(self) -> None:
        from attrsens.models.census import take_census

        f, out = self.f, self.out
        census = out.census = take_census(f.network, f.normalised(self.few[:1]))
        if census.training:
            out.problems.append(
                f"{len(census.training)} modules stay in training mode: {', '.join(census.training[:3])}"
            )
        if census.output != "tensor":
            out.notes.append(f"it returns a {census.output}; the first is taken for the logits")
        if census.others:
            kinds = ", ".join(f"{n} {name}" for name, n in census.others.items())
            also = "besides its ReLUs it calls" if census.relus else "it calls no ReLU but"
            out.notes.append(f"{also} {kinds}, which softplus and ReLU rules leave as they are")

    def _gradients(self) -> None:
        from attrsens.models.census import look_at_gradients

        found = self.out.gradients = look_at_gradients(self.f, self.few)
        words = {
            "none": "its logits have no gradient path to the input",
            "zero": "its gradient is zero everywhere on every picture, and around them",
            "zero here": "its gradient is zero everywhere on every picture, though not around them",
            "not finite": "its gradient is not finite on a picture",
            "failed": found.message,
        }
        if found.state != "ok":
            self.out.problems.append(words[found.state])
        if found.state == "ok" and found.flat:
            self.out.notes.append(f"on {found.flat} of {len(self.few)} pictures its gradient is zero everywhere")
        if found.saturated:
            self.out.notes.append(
                "the top class's probability is saturated on a picture: gradients of it are zero; use output=logit"
            )

    def _speed(self) -> None:
        out, fast = self.out, in_form(self.f)
        try:
            fast.view().logits(self.pixels[:1])
        except AttrsensError as error:
            out.problems.append(f"folded: {error}; use --no-fold")
            return
        form = fast.form
        assert form is not None
        out.form = FormInfo(form.folding.folded, form.folding.left, form.layout_name, form.note)
        if form.folding.left:
            reasons = ", ".join(dict.fromkeys(form.folding.left.values()))
            out.notes.append(f"{len(form.folding.left)} BatchNorms stay unfolded: {reasons}")
        if form.note:
            out.notes.append(f"it runs in plain memory order: {form.note}")
        back = out.gradients is not None and out.gradients.state not in ("none", "failed")
        forward, gradient = throughput(fast, SPEED)
        best = floor(fast, self.pixels, SPEED, back)
        out.speed = Speed(forward, None, max(forward, best["forward"]), None)
        if back:
            out.speed.gradient, out.speed.floor_gradient = gradient, max(gradient, best["gradient"])

    def _verdicts(self) -> None:
        from attrsens.models.census import Census, Facts, Gradients

        out = self.out
        facts = Facts(out.census or Census(), out.gradients or Gradients("failed"), self.f.network)
        side = self.pixels.shape[-2:]
        out.methods = [self._verdict(name, facts, (side[0], side[1])) for name in METHODS]

    def _verdict(self, name: str, facts: Facts, side: tuple[int, int]) -> Verdict:
        call, traits = parse_call(name), METHODS[name].traits
        reason = unfit(name, facts)
        try:
            passes = cost(self.f, call, side)
        except AttrsensError as error:
            return Verdict(name, False, reason or str(error), None, None, None)
        if reason:
            return Verdict(name, False, reason, passes.forward, passes.backward, None)
        speed, seconds = self.out.speed, None
        if speed:
            seconds = (passes.forward - passes.backward) / speed.forward
            seconds += passes.backward / speed.gradient if speed.gradient else 0.0
        if traits["gradient"] and facts.gradients.state == "zero here":
            reason = "the gradient is zero at the pictures, though not around them"
        if traits["gradient"] and facts.gradients.saturated and call.parameters["output"] == "prob":
            reason = "where the probability is saturated its map is zero; output=logit is not"
        return Verdict(name, True, reason, passes.forward, passes.backward, seconds)


def unfit(name: str, facts: Facts) -> str | None:
    """Why a method cannot explain the network, or None: gradients that it needs, and what its trait `unfit` says."""
    traits, state = METHODS[name].traits, facts.gradients.state if METHODS[name].traits["gradient"] else "ok"
    if traits.get("inner") and state in ("zero", "zero here", "not finite"):
        state = "ok"  # that is the input's gradient; this method's ends at a layer
    lost = {
        "none": "no gradient path from the logits to the input",
        "not finite": "gradients are not finite",
        "failed": f"the way back fails: {facts.gradients.message}",
    }
    if state in lost:
        return lost[state]
    own: Callable[[Facts], str | None] | None = traits.get("unfit")
    reason = own(facts) if own else None
    if state == "zero":
        return reason or "its map would be zero: every gradient is"
    if state == "zero here" and traits.get("local"):
        return reason or "its map would be zero: the gradient is, at the pictures"
    return reason


def pictures(f: Classifier) -> tuple[Tensor, list[Sample]]:
    """(pixels (N, C, H, W) of the packaged pictures whose classes are plain, as the classifier crops them; which)."""
    import torch

    steps = f.preprocess
    if steps.crop is None:
        steps = replace(steps, resize=steps.resize or SIDE, crop=steps.resize or SIDE)
    shown = sorted((s for s in samples().values() if s.right), key=lambda s: not s.photo)
    return torch.stack([torch.from_numpy(steps.apply(decode(s.path))) for s in shown]), shown


def in_form(f: Classifier) -> Classifier:
    """The same classifier in the form that passes run by default: a copy, folded and laid out."""
    from attrsens.models.failures import copied

    return _classifier(f, copied(f.network, f.name), fold=True)


def bare_classifier(f: Classifier, network: nn.Module) -> Classifier:
    """A classifier of another network with the same preprocessing and classes, unfolded."""
    return _classifier(f, network, fold=False)


def _classifier(f: Classifier, network: nn.Module, fold: bool) -> Classifier:
    from attrsens.models.classifier import Classifier

    return Classifier(
        network, **asdict(f.preprocess), classes=f.classes, name=f.name, id=f.id, device=str(f.device), fold=fold,
        batch=f.asked_batch, copy_module=False,
    )  # fmt: skip


def _loaded(f: Classifier) -> Loaded:
    count = sum(p.numel() for p in f.network.parameters())
    return Loaded(
        f.name, f.id, f.source, f.sha256, f.architecture, list(f.layout), count, f.preprocess.describe(),
        len(f.classes) if f.classes else 0, f.classes,
    )  # fmt: skip
