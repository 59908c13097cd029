"""What an attack has shown: its numbers, measured on the written image, as a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.engine.aims import MAPS, Value, aim_of, aimed, claim
from attrsens.engine.compare import compare
from attrsens.engine.judge import shown
from attrsens.engine.metrics import Judging, definition, short, spec_of
from attrsens.engine.report import (
    AttackInfo,
    HeatmapInfo,
    PassInfo,
    PredictionInfo,
    Record,
    ScoreInfo,
    SimilarityInfo,
)
from attrsens.engine.report_rows import Stage
from attrsens.engine.run import Found, Result, _target_info
from attrsens.engine.targets import shares
from attrsens.heatmaps import Attribution, finish
from attrsens.spec import ATTACKS

if TYPE_CHECKING:
    from attrsens.engine.attack import Row
    from attrsens.models.perceptual import Lpips

Array = NDArray[Any]

SHARES = "h = |raw map| summed over channels, divided by its total; of the network as it is, on the 8-bit image"
WORDS = {  # name: (definition, direction: which end speaks for the explanation, none where neither does)
    "target_distance": ("1 - cos(h(x'), h_t)", "higher"),
    "target_distance_before": ("1 - cos(h(x), h_t)", "none"),
    "original_distance": ("1 - cos(h(x'), h(x))", "lower"),
    "top_share": ("share of h(x') on the {k} largest pixels of h(x)", "higher"),
    "top_share_before": ("share of h(x) on its {k} largest pixels", "none"),
    "centre_distance": ("distance in pixels of the centres of mass of h(x') and h(x)", "lower"),
    "prediction_kept": ("1 where the top class of the 8-bit image is the clean image's, else 0", "none"),
    "prediction_drift": ("largest |p(x') - p(x)| over classes, softmax of the 8-bit image", "higher"),
    "linf": ("largest |x' - x| of a channel, 8-bit image, pixels in [0, 1]", "higher"),
    "l2": ("||x' - x||_2, 8-bit image, pixels in [0, 1]", "higher"),
    "lpips": ("LPIPS v0.1, VGG16; Zhang et al. 2018", "higher"),
    "boundary_distance": ("||x' - x||_2 of the nearest image of another class, before rounding, pixels", "higher"),
}
WANTED = "lpips: give --lpips-backbone FILE, torchvision's VGG16 weights, and install attrsens[lpips]"
BUDGETS = ("eps", "flow_eps", "colour_eps", "steps", "restarts", "n")
FALL = 1e-3  # of the objective's start: less of a fall is none


@dataclass
class Measured:
    """An attack's image and what the network makes of it, and of noise of the same norm.

    Attributes:
        image: uint8, (C, H, W).
        logits: (1 + draws, classes); raws (1 + draws, ...): of the image, then of each draw of noise.
        noise: the L2 norm of each draw, rounded as it is.
    """

    image: Array
    logits: Array
    raws: Array | None
    linf: float
    l2: float
    noise: list[float]
    sizes: dict[str, float]
    curve: list[float]
    signal: float | None
    fading: bool
    stages: list[tuple[str, float | None]]
    notes: dict[str, float | None]
    extras: dict[str, Array]
    passes: dict[str, int]

    def written(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """For the store."""
        arrays = {"image": self.image, "logits": self.logits} | {f"extra.{k}": v for k, v in self.extras.items()}
        if self.raws is not None:
            arrays["raws"] = self.raws
        names = "linf l2 noise sizes curve signal fading stages notes passes".split()
        return arrays, {name: getattr(self, name) for name in names}

    @classmethod
    def read(cls, arrays: Mapping[str, Array], data: Mapping[str, Any]) -> Measured:
        """From the store."""
        extras = {k.removeprefix("extra."): v for k, v in arrays.items() if k.startswith("extra.")}
        names = "linf l2 noise sizes curve signal fading notes passes".split()
        stages = [(str(name), distance) for name, distance in data["stages"]]
        own: dict[str, Any] = {name: data[name] for name in names}
        return cls(arrays["image"], arrays["logits"], arrays.get("raws"), stages=stages, extras=extras, **own)


def record_of(row: Row, judging: Judging, lpips: Lpips | None) -> list[Result]:
    """The record of an attacked map with its picture and numbers. A boundary search attacks no map: what it found joins
    the record of the map."""
    found, look, m = row.found, row.look, row.measured
    if not found.result or m is None:
        return []
    clean, picture = found.result
    clean_p, after_p = (_softmax(v) for v in (look.ready.logits, m.logits[0]))
    top, own = int(m.logits[0].argmax()), int(look.ready.logits.argmax())
    still = m.raws is not None and len(m.raws) == 1  # nothing changed, and noise of no norm changes nothing
    values = [
        Value("prediction_kept", float(top == own), [float(z.argmax() == own) for z in m.logits[1:]] or [1.0] * still),
        Value("prediction_drift", float(np.abs(after_p - clean_p).max())),
        Value("linf", m.linf),
        Value("l2", m.l2, m.noise or [0.0] * still),
        Value("lpips", row.lpips),
    ]
    perceptual = lpips.definition if lpips else None
    if m.raws is None:
        values.insert(0, Value("boundary_distance", m.notes["distance"] if m.notes["success"] else None))
        clean.attack = _info(row, m, values)
        clean.scores |= _scores(row, values, perceptual)
        picture.extras["attacked"] = _shown(m.image)
        return []
    before = shares(found.raw)
    raws = [*m.raws, found.raw] if still else m.raws
    after, *noisy = (shares(raw) for raw in raws)
    values = [*aimed(row, before, after, noisy), *values]
    p = found.call.parameters
    maps = [np.asarray(finish(raw, str(p["sign"]), str(p["reduce"])), np.float32) for raw in (found.raw, *raws)]
    info = _target_info(look.classifier, m.logits[0], found.target, None)
    label = look.classifier.classes[top] if look.classifier.classes else None
    changed = PredictionInfo(top, label, info.probability, info.rank, top != own)
    record = Record(
        key=row.key,
        image=clean.image,
        input=replace(clean.input, prediction=changed),
        model=clean.model,
        target=clean.target,
        method=clean.method,
        heatmap=HeatmapInfo.of(maps[1]),
        passes=PassInfo(**m.passes),
        similarities=[_similarity(call, row, maps) for call in judging.similarities],
        scores=_scores(row, values, perceptual),
        attack=_info(row, m, values),
        notes={},
    )
    extras = dict(m.extras)
    if row.goal:
        extras |= {"target": row.goal.shares, "before": before, "after": after}
    shown = Attribution(maps[1], found.target, info.label, info.probability, {}, _shown(m.image), extras)
    return [(record, shown)]


def side_by_side(part: Sequence[Found], judging: Judging) -> None:
    """The similarities of an image's maps to each other, for a search that attacks none of them: of the boundary's maps
    to the usual ones. Each pair into the first's record."""
    for i, a in enumerate(part):
        for b in part[i + 1 :]:
            if not a.result or not b.result or a.target != b.target:
                continue
            for call in judging.similarities:
                value, reason = compare(call, shown(a, a.raw), shown(b, b.raw))
                a.result[0].similarities.append(
                    SimilarityInfo(
                        name=short(call),
                        value=value,
                        to=b.result[0].key,
                        role="pair",
                        floor=None,
                        ceiling=None,
                        definition=definition(call, a.call, a.target, b.call),
                        direction=spec_of(call).traits["direction"],
                        reason=reason,
                    )
                )


def _scores(row: Row, values: list[Value], perceptual: str | None) -> dict[str, ScoreInfo]:
    out = {}
    for v in values:
        text, direction = WORDS[v.name]
        control = sum(v.noise) / len(v.noise) if v.noise else None
        text = text.format_map(v.details) if v.details else text
        text = f"{text}; {SHARES}" if "h(" in text else text
        if v.noise:
            drawn = f"the mean of {len(v.noise)} draws of Gaussian noise of the attack's L2 norm, rounded alike"
            text += f"; floor: {drawn if row.measured and row.measured.l2 else 'the clean image, as nothing changed'}"
        reason = None if v.value is not None else v.reason
        if v.name == "lpips":
            unlit = "lpips: the input has no colours" if perceptual else WANTED
            text, reason = perceptual or text, None if v.value is not None else unlit
        controls: dict[str, float | None] = {} if control is None else {"noise": control}
        text += f"; {ATTACKS[row.call.name].kind} {row.call.name}"
        more: dict[str, Any] = {"reason": reason, "controls": controls, "details": v.details}
        out[v.name] = ScoreInfo(row.key, v.value, control, None, text, direction, **more)
    return out


def _info(row: Row, m: Measured, values: list[Value]) -> AttackInfo:
    assert row.found.result
    call, p = row.call, row.call.parameters
    found = {v.name: v for v in values}
    return AttackInfo(
        kind=call.name,
        version=call.version,
        parameters=dict(p),
        expression=call.expression,
        of=row.found.result[0].key,
        budget={name: float(p[name]) for name in BUDGETS if name in p},
        sizes=m.sizes,
        target=row.goal.name if row.goal else None,
        signal=m.signal,
        curve=m.curve,
        claim=claim(row, found),
        warnings=_warnings(row, m, found),
        stages=[Stage(name, distance) for name, distance in m.stages],
        notes=m.notes,
    )


def _warnings(row: Row, m: Measured, found: Mapping[str, Value]) -> list[str]:
    """Signs that the attack is weaker than the explanation: more is possible than it shows."""
    out: list[str] = []
    if m.raws is None:
        if found["boundary_distance"].value is not None and found["prediction_kept"].value:
            out.append("rounded to 8 bits, the image is of the clean image's class again: the boundary is that near")
        return out
    start, best = m.notes.get("objective_start"), m.notes.get("objective")
    if m.signal is not None and m.signal == 0:
        out.append("no second-order signal: the slope of the objective was zero where the attack began")
    elif start is not None and best is not None and row.call.parameters["steps"] and start - best < FALL * abs(start):
        out.append(
            "the objective hardly fell below its start: its slope may be masked; try a smaller beta, or more steps"
        )
    if not found["prediction_kept"].value:
        out.append("the class of the 8-bit image is another one: the attack shows nothing about the explanation")
    if m.notes.get("objective", 0.0) is None:
        out.append("nothing that was tried kept the class; the clean image stands in its place")
    name = aim_of(ATTACKS[row.call.name])
    value, noise = found[name].value, found[name].noise
    if value is not None and noise and row.call.name != "random":
        mean = sum(noise) / len(noise)
        if MAPS[name] * mean > MAPS[name] * value:
            out.append(f"noise of the same norm does as much ({name} {mean:.3f} against {value:.3f})")
    if m.fading:
        out.append("the second half of the steps found nothing as good as the first: the step may be too long")
    before, won = found.get("target_distance_before"), start is not None and best is not None and best < 0.9 * start
    if won and before and value is not None and before.value is not None and value >= before.value:
        out.append("what was won on the smoothed network is lost on the network as it is; try a larger beta")
    return out


def _similarity(call: Any, row: Row, maps: list[NDArray[np.float32]]) -> SimilarityInfo:
    """Of the attacked map to the clean one; floor: of the map under noise of the same norm, the mean of its draws."""
    assert row.found.result
    value, reason = compare(call, maps[0], maps[1])
    noise = [v for v, _ in (compare(call, maps[0], other) for other in maps[2:]) if v is not None]
    control = sum(noise) / len(noise) if noise else None
    text = definition(call, row.found.call, row.found.target)
    return SimilarityInfo(
        name=short(call),
        value=value,
        to=row.found.result[0].key,
        role="reference",
        floor=control,
        ceiling=None,
        definition=f"{text}; floor: of noise of the attack's L2 norm",
        direction=spec_of(call).traits["direction"],
        reason=reason,
        controls={} if control is None else {"noise": control},
    )


def _softmax(logits: Array) -> Array:
    wide = logits.astype(np.float64)
    share = np.exp(wide - wide.max())
    return np.asarray(share / share.sum())


def _shown(image: Array) -> NDArray[np.uint8]:
    return np.asarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0), np.uint8)
