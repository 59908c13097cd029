"""Whether an explanation holds as long as the prediction does."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any

from attrsens.scores._case import Answers, Ask, Case, Finding, NoValue
from attrsens.scores._pool import (
    BALL,
    COPIES,
    COPIES_DRAWN,
    DRAWS,
    DRAWS_OR_ALONE,
    OWN_DRAWS,
    RADIUS,
    SEED,
    SPACE,
    Pool,
    given_map,
)
from attrsens.spec import SCORES, Param

if TYPE_CHECKING:
    from torch import Tensor

FORM = Param(
    "printed: every entry over its own size, as in the paper; norm: norms over norms, which no near-zero entry rules",
    choices=("printed", "norm"),
    source="Agarwal et al. 2022, eq. 2 to 5; science S-4",
)
POWER = Param("p of the norm", min=1, max=20, source="Agarwal et al. 2022: l_p")
LEAST = Param(
    "smallest denominator: for sizes of entries and for the change below the line", min=1e-30, source="Quantus: 1e-6"
)
PRINTED, NORM = "||(Phi(x) - Phi(y)) / Phi(x)||", "||Phi(x) - Phi(y)|| / ||Phi(x)||"


def _formula(printed: str, norm: str) -> str:
    return (
        f"largest over y, form {{form}}: printed {PRINTED} / {printed}, norm ({NORM}) / ({norm}); p = {{p}}, "
        f"denominators at least {{least}}, Phi over all entries; {COPIES_DRAWN}, those of {{n}} whose top class is "
        f"that of x; {OWN_DRAWS}"
    )


@SCORES(
    "ris",
    version=1,
    formula=_formula("||(x - y) / x||", "||x - y|| / ||x||"),
    direction="lower",
    range=(0.0, None),
    source="Agarwal et al. 2022, eq. 2; science S-4",
    cost="n x method + n F",
    judges="pool",
    floor="shuffle",
    reduce="none",
)
def relative_input_stability(
    case: Case,
    *,
    form: Annotated[str, FORM] = "printed",
    p: Annotated[float, POWER] = 2.0,
    least: Annotated[float, LEAST] = 1e-6,
    n: Annotated[int, COPIES] = 50,
    radius: Annotated[float, RADIUS] = 0.1,
    ball: Annotated[str, BALL] = "linf",
    space: Annotated[str, SPACE] = "pixel",
    draws: Annotated[str, DRAWS] = "common",
    seed: Annotated[int, SEED] = 0,
) -> Answers:
    """Largest relative change of the map over the relative change of the image, while the top class stays.

    Low is stable. The printed form divides entry by entry, so that the smallest entries of map and image rule it; both
    forms are among the details. Agarwal et al. 2022, eq. 2; science S-4. n times the method and n passes forward.

    Raises:
        NoValue: the map (or, with form=norm, the image in this space) is zero, or no copy keeps the top class.
    """
    pool = Pool(case, n, radius, ball, space, seed, draws)
    return (yield from _relative(pool, "image", form, p, least))


@SCORES(
    "ros",
    version=1,
    formula=_formula("||h(x) - h(y)||", "||h(x) - h(y)|| / ||h(x)||") + "; h all logits",
    direction="lower",
    range=(0.0, None),
    source="Agarwal et al. 2022, eq. 5; science S-4",
    cost="n x method + n F",
    judges="pool",
    floor="shuffle",
    reduce="none",
)
def relative_output_stability(
    case: Case,
    *,
    form: Annotated[str, FORM] = "printed",
    p: Annotated[float, POWER] = 2.0,
    least: Annotated[float, LEAST] = 1e-6,
    n: Annotated[int, COPIES] = 50,
    radius: Annotated[float, RADIUS] = 0.1,
    ball: Annotated[str, BALL] = "linf",
    space: Annotated[str, SPACE] = "pixel",
    draws: Annotated[str, DRAWS] = "common",
    seed: Annotated[int, SEED] = 0,
) -> Answers:
    """Largest relative change of the map over the change of the logits, while the top class stays.

    Low is stable. As printed, the change of the logits is not relative. Both forms are among the details. Agarwal et
    al. 2022, eq. 5; science S-4. n times the method and n passes forward.

    Raises:
        NoValue: the map (or, with form=norm, every logit) is zero, or no copy keeps the top class.
    """
    pool = Pool(case, n, radius, ball, space, seed, draws)
    return (yield from _relative(pool, "logits", form, p, least))


@SCORES(
    "rrs",
    version=1,
    formula=_formula("||(L(x) - L(y)) / L(x)||", "||L(x) - L(y)|| / ||L(x)||")
    + "; L what the linear layer that makes the logits is given",
    direction="lower",
    range=(0.0, None),
    source="Agarwal et al. 2022, eq. 3; science S-4",
    cost="n x method + 2 n + 1 F",
    judges="pool",
    floor="shuffle",
    reduce="none",
)
def relative_representation_stability(
    case: Case,
    *,
    form: Annotated[str, FORM] = "printed",
    p: Annotated[float, POWER] = 2.0,
    least: Annotated[float, LEAST] = 1e-6,
    n: Annotated[int, COPIES] = 50,
    radius: Annotated[float, RADIUS] = 0.1,
    ball: Annotated[str, BALL] = "linf",
    space: Annotated[str, SPACE] = "pixel",
    draws: Annotated[str, DRAWS] = "common",
    seed: Annotated[int, SEED] = 0,
) -> Answers:
    """Largest relative change of the map over that of the penultimate features, while the top class stays.

    Low is stable. Features that a ReLU left at 0 rule the printed form; both forms are among the details. Agarwal et
    al. 2022, eq. 3; science S-4. n times the method and 2 n + 1 passes forward.

    Raises:
        NoValue: the map (or, with form=norm, every feature) is zero, no copy keeps the top class, or the logits are
            not the output of a linear layer.
    """
    pool = Pool(case, n, radius, ball, space, seed, draws)
    return (yield from _relative(pool, "features", form, p, least))


@SCORES(
    "stability_rate",
    version=1,
    formula="share of {n} copies y whose map has a {similarity} of at least {tau} with that of x, over all entries, "
    f"and whose top class is that of x; {COPIES_DRAWN}; {OWN_DRAWS}; lower and upper: Clopper-Pearson, one-sided, "
    "{confidence} each",
    direction="higher",
    range=(0.0, 1.0),
    source="science S-5; Clopper and Pearson 1934",
    cost="n x method + n F",
    judges="pool",
    floor="shuffle",
    reduce="none",
)
def stability_rate(
    case: Case,
    *,
    tau: Annotated[
        float,
        Param(
            "similarity from which a map counts as the same; 0.9 is an effect of 0.1",
            min=-1,
            max=1,
            scale="bounded",
            range=(0.5, 1),
            source="science 2: the tolerance",
        ),
    ] = 0.9,
    similarity: Annotated[
        str, Param("of two maps, over all entries", choices=("cosine", "spearman"), source="science 2, S-5")
    ] = "cosine",
    confidence: Annotated[float, Param("of each bound", min=0.5, max=0.999999, source="science S-5")] = 0.95,
    n: Annotated[int, Param(COPIES.help, min=1, max=100_000, source="science S-5: the fewest that certify 0.95")] = 59,
    radius: Annotated[float, RADIUS] = 0.1,
    ball: Annotated[str, BALL] = "linf",
    space: Annotated[str, SPACE] = "pixel",
    draws: Annotated[str, DRAWS_OR_ALONE] = "common",
    seed: Annotated[int, SEED] = 0,
) -> Answers:
    """Share of noisy copies of the image that keep both their map and their top class, with an exact bound.

    k / n, k = #{i: sim(Phi(x + u_i), Phi(x)) >= tau and the top class is kept}. Rates below `lower` are ruled out at
    this confidence (0.95 with all of 59 copies kept), those above `upper` as well: unlike a sampled maximum they say
    something of the copies that were not drawn. A map without a direction (zero, or for spearman constant) counts as
    -1. Science S-5. n times the method and n passes forward.

    Raises:
        NoValue: the map is zero, or for spearman constant.
    """
    from scipy.stats import beta

    pool = Pool(case, n, radius, ball, space, seed, draws)
    first = _direction(case.map, similarity)
    if first is None:
        raise NoValue("the map is zero everywhere" if similarity == "cosine" else "the map is constant")
    maps = yield from pool.maps()
    logits = yield from pool.logits()
    found = []
    for heatmap in maps:
        other = _direction(heatmap, similarity)
        found.append(float(first @ other) if other is not None else -1.0)
    kept = (logits.argmax(1) == int(case.logits.argmax())).tolist()
    count = sum(s >= tau and same for s, same in zip(found, kept, strict=True))
    details = {
        "count": count,
        "n": n,
        "lower": float(beta.ppf(1 - confidence, count, n - count + 1)) if count else 0.0,
        "upper": float(beta.ppf(confidence, count + 1, n - count)) if count < n else 1.0,
        "label_kept": sum(kept),
        "map_kept": sum(s >= tau for s in found),
    }
    return Finding(count / n, found, details)


def _relative(pool: Pool, to: str, form: str, p: float, least: float) -> Generator[Ask, Any, Finding]:
    """The largest ratio of the map's relative change to that of the image, the logits or the features, in both forms;
    the change of the logits is not relative in the printed one."""
    case = pool.case
    given_map(case)
    maps = yield from pool.maps()
    logits = yield from pool.logits()
    if to == "features":
        features = yield from pool.features()
        base, moves = features[0], features[1:] - features[0]
    elif to == "logits":
        base, moves = case.logits, logits - case.logits
    else:
        base, moves = case.classifier.view(space=pool.space).encode(case.pixels).cpu(), pool.moves(range(pool.n))
    kept = (logits.argmax(1) == int(case.logits.argmax())).nonzero()[:, 0].tolist()
    if not kept:
        raise NoValue("no copy keeps the top class")
    first, under = case.map.flatten().double(), base.flatten().double()
    own, length = first.abs().clamp(min=least), float(under.norm(p))
    values: dict[str, list[float]] = {"printed": [], "norm": []}
    for i in kept:
        change, move = maps[i].flatten().double() - first, moves[i].flatten().double()
        below = move if to == "logits" else move / under.abs().clamp(min=least)
        values["printed"].append(float((change / own).norm(p)) / max(float(below.norm(p)), least))
        if length > 0:
            ratio = float(change.norm(p)) / float(first.norm(p))
            values["norm"].append(ratio / max(float(move.norm(p)) / length, least))
    if not values[form]:
        raise NoValue("what the map is held against is zero")
    largest = {k: max(v) if v else None for k, v in values.items()}
    witness = kept[max(range(len(kept)), key=values[form].__getitem__)]
    value = largest[form]
    assert value is not None
    return Finding(value, values[form], {**largest, "neighbours": len(kept), "witness": witness})


def _direction(heatmap: Tensor, similarity: str) -> Tensor | None:
    """What two maps' scalar product is the similarity of: the map, for spearman its centred ranks (ties averaged), at
    unit length; None where it has none."""
    import torch

    flat = heatmap.flatten().double()
    if similarity == "spearman":
        from scipy.stats import rankdata

        flat = torch.from_numpy(rankdata(flat.numpy()))
        flat = flat - (len(flat) + 1) / 2
    norm = float(flat.norm())
    return flat / norm if norm > 0 else None
