"""What attacks are after, as numbers of the map of the written image, and the claim that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attrsens.attacks._settings import top_count
from attrsens.engine.budgets import alone
from attrsens.spec import ATTACKS, Spec

if TYPE_CHECKING:
    from attrsens.engine.attack import Row

Shares = NDArray[np.float32]
AWAY = "original_distance"
MAPS = {
    AWAY: 1,
    "target_distance": -1,
    "top_share": -1,
    "centre_distance": 1,
}  # how far maps are, and which way is harm
ZERO = "the map is zero everywhere"


@dataclass
class Value:
    """A number of an attack, what draws of noise give for it, and why there is none."""

    name: str
    value: float | None
    noise: list[float] = field(default_factory=list)
    details: dict[str, float | None] = field(default_factory=dict)
    reason: str = "the search found no other class"


def aim_of(spec: Spec) -> str:
    """The number that an attack on maps makes large or small."""
    return str(spec.traits.get("aim", "target_distance" if spec.traits.get("target") else AWAY))


def aimed(row: Row, before: Shares, after: Shares, noisy: Sequence[Shares]) -> list[Value]:
    """How far the map went, and what else the attack was after: of the clean map, the attacked one, and of noise."""
    p, aim = row.call.parameters, aim_of(ATTACKS[row.call.name])
    out = [Value(AWAY, distance(after, before), [distance(n, before) for n in noisy])]
    if row.goal:
        goal = row.goal.shares
        out.append(Value("target_distance", distance(after, goal), [distance(n, goal) for n in noisy]))
        out.append(Value("target_distance_before", distance(before, goal)))
    if aim == "top_share":
        k = top_count(int(p["k"]), before.size)
        top = np.argsort(-before.ravel(), kind="stable")[:k]
        held = [float(h.ravel()[top].sum(dtype=np.float64)) if h.any() else None for h in (after, before, *noisy)]
        out.append(Value("top_share", held[0], [v for v in held[2:] if v is not None], {"k": k}, ZERO))
        out.append(Value("top_share_before", held[1], details={"k": k}, reason=ZERO))
    if aim == "centre_distance":
        home = centre(before)
        far = [
            None if home is None or (c := centre(h)) is None else float(np.hypot(*(c - home))) for h in (after, *noisy)
        ]
        out.append(Value("centre_distance", far[0], [v for v in far[1:] if v is not None], reason=ZERO))
    return out


def distance(a: Shares, b: Shares) -> float:
    """1 - cosine; 1 where one of the maps is zero."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return max(0.0, 1 - float(x @ y) / scale) if scale > 0 else 1.0


def centre(h: Shares) -> NDArray[np.float64] | None:
    """The centre of mass, down and across in pixels; None of a map of zeros."""
    mass = h.astype(np.float64)
    if not mass.any():
        return None
    down, across = np.arange(mass.shape[0]), np.arange(mass.shape[1])
    found: NDArray[np.float64] = np.array([mass.sum(1) @ down, mass.sum(0) @ across]) / mass.sum()
    return found


def claim(row: Row, found: Mapping[str, Value]) -> str:
    """In words, what was shown, and under which budget."""
    p = row.call.parameters
    assert row.measured
    if "boundary_distance" in found:
        reached = found["boundary_distance"].value
        if reached is None:
            return "no image of another class was found, which does not mean that there is none near"
        other, classes = int(row.measured.notes["other_class"] or 0), row.look.classifier.classes
        name = f"{classes[other]} ({other})" if classes else str(other)
        return f"class {name} is at most {reached:.4g} (pixel L2) away"
    bounds = ", ".join(f"{name} {p[name]:.4g}" for name in ("eps", "flow_eps", "colour_eps") if _acts(name, p))
    if not alone(p):
        bounds += f" (Linf {row.measured.linf:.4g} in all)"
    kept = "the class stays" if found["prediction_kept"].value else "THE CLASS CHANGES"
    effort = f"{p['steps']} steps" if "steps" in p else f"{p['n']} candidates"
    return f"within {bounds} {_shown(found)}, {kept}; found in {effort}, on the 8-bit image"


def _shown(found: Mapping[str, Value]) -> str:
    moved = f"at least {found[AWAY].value:.3f} from the clean map"
    if "target_distance" in found:
        near, before = found["target_distance"].value, found["target_distance_before"].value
        return f"the map comes at most {near:.3f} from the target ({before:.3f} before), {moved}"
    if "top_share" in found and (held := found["top_share"].value) is not None:
        top, k = found["top_share_before"].value, found["top_share"].details["k"]
        return (
            f"the map's top {k:.0f} pixels hold at most {held:.3f} of it ({top or 0:.3f} before), and it comes {moved}"
        )
    if "centre_distance" in found and (far := found["centre_distance"].value) is not None:
        return f"the map's centre moves by at least {far:.3g} px, and it comes {moved}"
    return f"the map comes {moved}"


def _acts(name: str, p: Mapping[str, Any]) -> bool:
    families = {"eps": "delta", "flow_eps": "stadv", "colour_eps": "recolor"}
    return name in p and families[name] in str(p.get("perturbation", "delta")).split("-")
