"""Random perturbations in a ball: the search that an attack by gradients has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from attrsens.attacks._settings import Seed
from attrsens.spec import ATTACKS, Param

if TYPE_CHECKING:
    from torch import Tensor

    from attrsens.attacks._case import Case, Outcome


@ATTACKS(
    "random", version=2, budget=True, cost="n (map + 1 F)", source="HSE figure 2; Ghorbani et al. 2019; methods 5.7"
)
def random_search(
    cases: Sequence[Case],
    *,
    draws: Annotated[
        str,
        Param(
            "signs: +eps or -eps on every channel; uniform: U(-eps, eps); walk: signs of size step added up and cut to "
            "eps, every stop a candidate",
            choices=("signs", "uniform", "walk"),
            source="HSE 4.2; methods 5.7",
        ),
    ] = "signs",
    eps: Annotated[
        float,
        Param(
            "largest change of a channel, pixels in [0, 1]; A,B,... gives a curve",
            min=0,
            max=1,
            scale="ratio",
            source="methods 5.7",
        ),
    ] = 8 / 255,
    n: Annotated[int, Param("candidates", min=1, max=1_000_000, scale="ratio", source="Ghorbani: 100")] = 50,
    step: Annotated[float, Param("size of a step of the walk", min=1e-6, max=1, source="Ghorbani: 1/255")] = 1 / 255,
    measure: Annotated[
        str,
        Param(
            "what is made large: cosine distance of shares, or L2 distance of unit-norm signed maps",
            choices=("shares", "unit_l2"),
            source="SMO; HSE 2",
        ),
    ] = "shares",
    seed: Seed = 0,
) -> list[Outcome]:
    """The random perturbation, among n, whose map is farthest from the clean one while the class stays.

    argmax_i d(h(x_i), h(x)). HSE figure 2; Ghorbani et al. 2019's random baseline is the walk. Candidates are rounded
    to 8 bits within eps; methods draw what they drew for the clean image. Any method can be attacked.
    """
    return [_search(case, draws, eps, n, step, measure, seed) for case in cases]


def _search(case: Case, draws: str, eps: float, n: int, step: float, measure: str, seed: int) -> Outcome:
    import math

    import torch

    from attrsens.attacks._case import Outcome, cosine_distance, eight_bit, plane_shares, spent
    from attrsens.models.batches import Passes, Stack
    from attrsens.seeds import Stream

    x, explainer = case.pixels, case.explainer
    f = explainer.classifier.view()
    if case.dry:
        one, width = explainer.raw(x).passes, f.sizes[1]
        together = "together" in explainer.spec.traits and not explainer.wrappers
        rows = -(-n // width) * width if together else n  # a batch is filled up with copies
        forward = rows * one.forward + n * explainer.classifier.copies
        return Outcome(x, passes=Passes(forward, rows * one.backward))
    stream = Stream(seed, explainer.image, f"attack {draws}")
    walked = torch.zeros_like(x)

    def candidate(i: int) -> Tensor:
        nonlocal walked
        draw = torch.from_numpy(stream.uniform([i], tuple(x.shape))[0]).to(x) * 2 - 1
        if draws == "walk":
            walked = ((walked + step * draw.sign()).clamp(-eps, eps) + x).clamp(0, 1) - x
            return walked + x
        return (x + eps * (draw.sign() if draws == "signs" else draw)).clamp(0, 1)

    before = case.before.float().cpu()

    def distance(raw: Tensor) -> float:
        if measure == "shares":
            return float(cosine_distance(plane_shares(raw, x), plane_shares(before, x)))
        units = [v.flatten() / v.norm().clamp(min=1e-30) for v in (raw, before)]
        return float((units[0] - units[1]).norm())

    image, best, kept, total = x, -1.0, 0, Passes()
    width = math.lcm(*f.sizes)  # few are held at a time, in the batches that all of them would go in
    for start in range(0, n, width):
        made = torch.stack([candidate(i) for i in range(start, min(start + width, n))])
        made = eight_bit(made, x, eps)
        stays = (f.logits(made).argmax(1).cpu() == case.own).tolist()
        raws, passes = explainer.many(Stack(len(made), lambda r, made=made: made[r.start : r.stop], like=x))  # type: ignore[misc]
        kept, total = kept + sum(stays), spent(total, passes)
        values = [distance(raw) if ok else -1.0 for raw, ok in zip(raws, stays, strict=True)]
        top = max(range(len(values)), key=values.__getitem__)
        if values[top] > best:
            image, best = made[top].clone(), values[top]
    total = spent(total, f.passes)
    notes: dict[str, float | None] = {"objective": best if best >= 0 else None, "kept_share": kept / n}
    sizes = {"delta_linf": float((image - x).abs().amax())}
    return Outcome(image.cpu(), sizes=sizes, notes=notes, passes=total)
