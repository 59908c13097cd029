"""What an attack has shown: its numbers, measured on the written image, as a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
    "prediction_kept": ("1 where the top class of the 8-bit image is the clean image's, else 0", "none"),
    "prediction_drift": ("largest |p(x') - p(x)| over classes, softmax of the 8-bit image", "higher"),
    "linf": ("largest |x' - x| of a channel, 8-bit image, pixels in [0, 1]", "higher"),
    "l2": ("||x' - x||_2, 8-bit image, pixels in [0, 1]", "higher"),
    "lpips": ("LPIPS v0.1, VGG16; Zhang et al. 2018", "higher"),
    "boundary_distance": ("||x' - x||_2 of the nearest image of another class, before rounding, pixels", "higher"),
}
WANTED = "lpips: give --lpips-backbone FILE, torchvision's VGG16 weights, and install attrsens[lpips]"
BUDGETS = ("eps", "flow_eps", "colour_eps", "steps", "restarts", "n")
ROUNDING = 0.5 / 255


@dataclass
class Measured:
    """An attack's image and what the network makes of it, and of noise of the same norm.

    Attributes:
        image: uint8, (C, H, W).
        logits: (1 + draws, classes); raws (1 + draws, ...): of the image, then of each draw of noise.
    """

    image: Array
    logits: Array
    raws: Array | None
    linf: float
    l2: float
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
        names = "linf l2 sizes curve signal fading stages notes passes".split()
        return arrays, {name: getattr(self, name) for name in names}

    @classmethod
    def read(cls, arrays: Mapping[str, Array], data: Mapping[str, Any]) -> Measured:
        """From the store."""
        extras = {k.removeprefix("extra."): v for k, v in arrays.items() if k.startswith("extra.")}
        names = "linf l2 sizes curve signal fading notes passes".split()
        stages = [(str(name), distance) for name, distance in data["stages"]]
        own: dict[str, Any] = {name: data[name] for name in names}
        return cls(arrays["image"], arrays["logits"], arrays.get("raws"), stages=stages, extras=extras, **own)


@dataclass
class _Value:
    name: str
    value: float | None
    noise: list[float] = field(default_factory=list)


def record_of(row: Row, judging: Judging, lpips: Lpips | None) -> list[Result]:
    """The record of an attacked map with its picture and numbers. A boundary search attacks no map: what it found joins
    the record of the map."""
    found, look, m = row.found, row.look, row.measured
    if not found.result or m is None:
        return []
    clean, picture = found.result
    clean_p, after_p = (_softmax(v) for v in (look.ready.logits, m.logits[0]))
    top, own = int(m.logits[0].argmax()), int(look.ready.logits.argmax())
    values = [
        _Value("prediction_kept", float(top == own), [float(z.argmax() == own) for z in m.logits[1:]]),
        _Value("prediction_drift", float(np.abs(after_p - clean_p).max())),
        _Value("linf", m.linf),
        _Value("l2", m.l2),
        _Value("lpips", row.lpips),
    ]
    perceptual = lpips.definition if lpips else None
    if m.raws is None:
        values.insert(0, _Value("boundary_distance", m.notes["distance"] if m.notes["success"] else None))
        clean.attack = _info(row, m, values)
        clean.scores |= _scores(row, values, perceptual)
        picture.extras["attacked"] = _shown(m.image)
        return []
    before = shares(found.raw)
    after, *noisy = (shares(raw) for raw in m.raws)
    if row.goal:
        goal = row.goal.shares
        values.insert(0, _Value("target_distance_before", _distance(before, goal)))
        values.insert(0, _Value("target_distance", _distance(after, goal), [_distance(n, goal) for n in noisy]))
    values.insert(0, _Value("original_distance", _distance(after, before), [_distance(n, before) for n in noisy]))
    p = found.call.parameters
    maps = [np.asarray(finish(raw, str(p["sign"]), str(p["reduce"])), np.float32) for raw in (found.raw, *m.raws)]
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


def _scores(row: Row, values: list[_Value], perceptual: str | None) -> dict[str, ScoreInfo]:
    out = {}
    for v in values:
        text, direction = WORDS[v.name]
        control = sum(v.noise) / len(v.noise) if v.noise else None
        text = f"{text}; {SHARES}" if "h(" in text else text
        if v.noise:
            text += (
                f"; floor: the mean of {len(v.noise)} draws of Gaussian noise of the attack's L2 norm, rounded alike"
            )
        reason = None if v.value is not None else "the search found no other class"
        if v.name == "lpips":
            unlit = "lpips: the input has no colours" if perceptual else WANTED
            text, reason = perceptual or text, None if v.value is not None else unlit
        controls: dict[str, float | None] = {} if control is None else {"noise": control}
        text += f"; {ATTACKS[row.call.name].kind} {row.call.name}"
        out[v.name] = ScoreInfo(row.key, v.value, control, None, text, direction, reason=reason, controls=controls)
    return out


def _info(row: Row, m: Measured, values: list[_Value]) -> AttackInfo:
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
        curve=m.curve,
        claim=_claim(row, found),
        warnings=_warnings(row, m, found),
        stages=[Stage(name, distance) for name, distance in m.stages],
        notes=m.notes,
    )


def _claim(row: Row, found: dict[str, _Value]) -> str:
    """In words, what was shown, and under which budget."""
    p = row.call.parameters
    assert row.measured
    if "boundary_distance" in found:
        distance = found["boundary_distance"].value
        if distance is None:
            return "no image of another class was found, which does not mean that there is none near"
        other, classes = int(row.measured.notes["other_class"] or 0), row.look.classifier.classes
        name = f"{classes[other]} ({other})" if classes else str(other)
        return f"class {name} is at most {distance:.4g} (pixel L2) away"
    bounds = [f"{name} {p[name]:.4g}" for name in ("eps", "flow_eps", "colour_eps") if _acts(name, p)]
    kept = "the class stays" if found["prediction_kept"].value else "THE CLASS CHANGES"
    moved = f"at least {found['original_distance'].value:.3f} from the clean map"
    aim = ""
    if "target_distance" in found:
        near, before = found["target_distance"].value, found["target_distance_before"].value
        aim = f"at most {near:.3f} from the target ({before:.3f} before), "
    effort = f"{p['steps']} steps" if "steps" in p else f"{p['n']} candidates"
    return f"within {', '.join(bounds)} the map comes {aim}{moved}, {kept}; found in {effort}, on the 8-bit image"


def _acts(name: str, p: Mapping[str, Any]) -> bool:
    families = {"eps": "delta", "flow_eps": "stadv", "colour_eps": "recolor"}
    return name in p and families[name] in str(p.get("perturbation", "delta")).split("-")


def _warnings(row: Row, m: Measured, found: dict[str, _Value]) -> list[str]:
    """Signs that the attack is weaker than the explanation: more is possible than it shows."""
    out: list[str] = []
    if m.raws is None:
        if found["boundary_distance"].value is not None and found["prediction_kept"].value:
            out.append("rounded to 8 bits, the image is of the clean image's class again: the boundary is that near")
        return out
    if m.signal is not None and m.signal == 0:
        out.append("no second-order signal: the slope of the objective was zero where the attack began")
    if not found["prediction_kept"].value:
        out.append("the class of the 8-bit image is another one: the attack shows nothing about the explanation")
    if m.notes.get("objective", 0.0) is None:
        out.append("nothing that was tried kept the class; the clean image stands in its place")
    name = "target_distance" if "target_distance" in found else "original_distance"
    value, noise = found[name].value, found[name].noise
    if value is not None and noise and row.call.name != "random":
        mean = sum(noise) / len(noise)
        if (mean < value) if name == "target_distance" else (mean > value):
            out.append(f"noise of the same norm does as much ({name} {mean:.3f} against {value:.3f})")
    if m.fading:
        out.append("the second half of the steps found nothing as good as the first: the step may be too long")
    before, won = found.get("target_distance_before"), len(m.curve) > 1 and min(m.curve) < 0.9 * m.curve[0]
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


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """1 - cosine; 1 where one of the maps is zero."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return max(0.0, 1 - float(x @ y) / scale) if scale > 0 else 1.0


def _softmax(logits: Array) -> Array:
    wide = logits.astype(np.float64)
    share = np.exp(wide - wide.max())
    return np.asarray(share / share.sum())


def _shown(image: Array) -> NDArray[np.uint8]:
    return np.asarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0), np.uint8)
