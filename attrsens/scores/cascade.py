"""Whether a map changes when the network forgets what it has learned: the parameter randomisation test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from attrsens.errors import AttrsensError
from attrsens.scores._case import Answers, Case, Finding, Maps, NoValue, stack
from attrsens.spec import SCORES, Param

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Ranks = NDArray[np.float64]

LEAST = 0.1  # reliability below which a correction would be a guess (science 2)


@SCORES(
    "cascade",
    version=1,
    formula="mean over stages of the rank correlation of map (sign={sign}, reduce={reduce}) and map after new weights; "
    "order={order}, unit={unit}, at most {stages} stages, bias={bias}, shortcut={shortcut}; divided by the geometric "
    "mean of their reliabilities: {corrected}",
    direction="lower",
    range=(-1.0, 1.0),
    source="SMO; Adebayo et al. 2018; methods 4.10; corrected: science C-8, S-1, section 2",
    cost="min(stages, units) x method; if corrected and the method draws, twice that and 2 x method more",
    judges="none",
    sign="abs",
    reduce="none",
)
def cascade(
    case: Case,
    *,
    order: Annotated[
        str,
        Param(
            "top_down: from the output to the input, cumulative; bottom_up: from the input; single: one unit at a time",
            choices=("top_down", "bottom_up", "single"),
            source="SMO; bottom_up: Hedstroem et al. 2024; single: Adebayo et al. 2018",
        ),
    ] = "top_down",
    unit: Annotated[
        str,
        Param(
            "what is randomised at once: a block of the network, or a convolution or linear layer",
            choices=("block", "layer"),
            source="SMO: blocks of ResNet, layers of VGG",
        ),
    ] = "block",
    stages: Annotated[
        int,
        Param(
            "at most this many maps, spread evenly over the units, the first and last among them",
            min=1,
            max=10_000,
            source="SMO: every unit",
        ),
    ] = 12,
    bias: Annotated[
        str, Param("of convolutions and linear layers: as trained, or zero", choices=("keep", "zero"), source="SMO")
    ] = "keep",
    shortcut: Annotated[
        str,
        Param(
            "layers in modules named shortcut or downsample: new weights, or as trained",
            choices=("init", "skip"),
            source="methods 4.10: SMO skips them",
        ),
    ] = "init",
    corrected: Annotated[bool, Param("divide by the reliability of the maps", source="science C-8; SMO: false")] = True,
    seed: Annotated[int, Param("seed of the weights, which differ from image to image", min=0)] = 0,
) -> Answers:
    """How alike a map stays when the network's weights are replaced by random ones, unit by unit.

    Stage k's network has new weights in its first k units (single: in unit k alone): Xavier uniform, norms reset to the
    identity, biases as `bias` says, drawn for each image; units that no pass reaches count too. The class stays. Each
    stage gives the Spearman correlation of the map with the trained network's, over every element; the start, 1, is not
    among them. Low: the map depends on what was learned.

    A method that draws makes its maps alike or unlike by its noise alone. With `corrected`, every network is explained
    twice with other draws, c is the mean correlation of maps that share no draw, r that of two draws of one network,
    and a stage gives c / sqrt(r_trained r_stage), cut at 1; r = 1 for a method that draws nothing. A stage where r is
    below 0.1, or the map constant, has no similarity and is left out; `refused` counts them. With corrected=false the
    stages' draws are others than the map's, as in SMO.

    Magnitudes inside an average are a trap: with sign=abs_sample, as SMO has it, a mean over noise keeps the envelope
    that all networks share, and independent maps correlate (.27 becomes .84, science C-8). Report sign=abs beside it.

    Details: each stage's similarity, named by its unit; their mean without correction; the reliability of the trained
    network's map and the lowest; units; the share of the weights that were drawn.

    Raises:
        NoValue: the map is constant or not reproducible, no stage has a similarity, or the network has no weights or
            cannot be copied.
    """
    from attrsens.models.randomise import Randomised

    f, explainer = case.classifier, case.explainer
    try:
        if not explainer.dry:
            _settle(case)
        network = Randomised(f, unit, bias, shortcut, case.stream(seed, "cascade weights"), explainer.dry)
    except AttrsensError as error:
        raise NoValue(str(error)) from None
    if not network.units:
        raise NoValue("the network has no weights to randomise")
    twice = corrected and explainer.draws
    images = stack(2 if twice else 1, lambda indices: case.pixels.expand(len(indices), *case.pixels.shape), case.pixels)
    targets = (case.target,) * len(images)  # one after the other: a batch would be filled up with copies
    if twice:
        clean = yield Maps(("clean",), images, fresh=True, targets=targets)
    else:
        clean = case.map[None]
    trained = _all_ranks(clean)
    if not trained:
        raise NoValue("the map is constant, so nothing correlates with it")
    first = _correlation(trained[:1], trained[1:]) if twice else 1.0
    if first < LEAST and not explainer.dry:
        raise NoValue(f"two draws of the map correlate by {first:.2f} only, too little to correct for")

    units = network.units[::-1] if order != "bottom_up" else network.units
    asked = evenly(len(units), stages)
    similar: dict[str, float | None] = {}
    plain: list[float] = []
    lowest = first
    for k, part in enumerate(units):
        if order != "single" or k in asked:
            network.draw(part)
        if k not in asked:
            continue
        name = f"cascade {order} {unit} {bias} {shortcut} {seed} {k}"
        maps = yield Maps(("clean",), images, True, network=network.classifier, name=name, targets=targets)
        if order == "single":
            network.restore(part)
        found = _all_ranks(maps)
        similar[part.name] = None
        if not found:
            continue
        own = _correlation(found[:1], found[1:]) if twice else 1.0
        c = _correlation(trained, found[::-1])  # the i-th draws of two networks are the same, so they never meet
        plain.append(c)
        lowest = min(lowest, own)
        if own >= LEAST:
            similar[part.name] = max(-1.0, min(1.0, c / (first * own) ** 0.5))

    kept = [value for value in similar.values() if value is not None]
    if not kept:
        raise NoValue("no stage has a map that is not constant and reproducible")
    return Finding(
        sum(kept) / len(kept),
        kept if len(kept) == len(similar) else None,
        {
            **{f"at {name}": value for name, value in similar.items()},
            "uncorrected": sum(plain) / len(plain),
            "reliability": first if twice or not explainer.draws else None,
            "lowest_reliability": lowest if twice or not explainer.draws else None,
            "refused": float(len(similar) - len(kept)),
            "units": float(len(units)),
            "randomised": network.share,
        },
    )


def evenly(count: int, most: int) -> list[int]:
    """At most this many of the indices 0 ... count - 1, evenly spread, the last and, of several, the first included."""
    if most >= count:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)] if most > 1 else [count - 1]


def ranks(heatmap: Tensor) -> Ranks | None:
    """Average ranks of every element, centred and of unit length, so that a product of two is Spearman's correlation;
    None for a constant map."""
    import numpy as np
    from scipy.stats import rankdata

    found: Ranks = rankdata(heatmap.flatten().double().numpy())
    found = found - found.mean()
    length = float(np.sqrt(found @ found))
    return found / length if length > 0 else None


def _all_ranks(maps: Tensor) -> list[Ranks]:
    """The ranks of each map; none if one is constant."""
    found = [r for r in map(ranks, maps) if r is not None]
    return found if len(found) == len(maps) else []


def _correlation(a: list[Ranks], b: list[Ranks]) -> float:
    """Mean correlation of pairs."""
    products = [float(x @ y) for x, y in zip(a, b, strict=True)]
    return sum(products) / len(products)


def _settle(case: Case) -> None:
    """What is found out on the first passes is found out on the trained network: its form, and the layer that is
    explained."""
    from attrsens.models.layers import layer_of

    view = case.classifier.view()
    view.settle(case.pixels)
    if case.explainer.complete().get("layer") == "auto":
        layer_of(view, "auto", case.pixels)
