"""How near a map is to what the nearest decision boundary says."""

from __future__ import annotations

from typing import Annotated

from attrsens.scores._case import Answers, Beside, Case, Finding, Maps, NoValue, stack
from attrsens.spec import SCORES, Param, write_expression

SEARCH = {"bsm": ("search", "search_steps"), "big": ("search", "search_steps"), "bsg": ("search_steps",), "agi": ()}


@SCORES(
    "alignment",
    version=1,
    formula="{measure} distance of the map (sign={sign}, reduce={reduce}) to the boundary map {to} (auto: big for ig, "
    "else bsm) of the same output and space, for bsm normal={normal}; cosine 1 - cos, relative ||A - B|| / ||A||, raw "
    "||A - B||; searches {search}, {search_steps} steps",
    direction="lower",
    range=(0.0, None),
    source="BND; methods 4.11; measure and normal: science C-7",
    cost="boundary map (bsm: 210 F + 163 B); 1 F + 1 B more for the bound of normal=diff",
    judges="map",
    floor="shuffle",
    sign="signed",
    reduce="none",
)
def alignment(
    case: Case,
    *,
    to: Annotated[
        str,
        Param(
            "boundary map; auto: big for integrated gradients, bsm for all others",
            choices=("auto", "bsm", "big", "agi", "bsg"),
            source="BND: SM-BSM, IG-BIG, IG-AGI",
        ),
    ] = "auto",
    normal: Annotated[
        str,
        Param(
            "of bsm: diff: the boundary's normal, of the class less the other; fc: the class's gradient, as published",
            choices=("diff", "fc"),
            source="science C-7; BND: fc",
        ),
    ] = "diff",
    measure: Annotated[
        str,
        Param(
            "cosine: 1 - cos, blind to scale; relative: to the map's norm; raw: L2, grows with the gradients",
            choices=("cosine", "relative", "raw"),
            source="science C-7; BND: raw",
        ),
    ] = "cosine",
    search: Annotated[
        str,
        Param("attacks of the search (bsm, big)", choices=("pgd", "cw", "apgd", "pgd-cw", "pgd-cw-apgd"), source="BND"),
    ] = "pgd",
    search_steps: Annotated[
        int, Param("iterations of each attack (bsm, big, bsg)", min=1, max=10_000, scale="ratio", range=(20, 200))
    ] = 40,
) -> Answers:
    """Distance between a map and the map at, or along the way to, the nearest decision boundary.

    Small: near this image the network is as straight as the explanation says. All three measures are among the details.
    With normal=diff the two maps have different scales even if the network is linear, f_c against f_c - f_c', so only
    the cosine says much; with normal=fc all three are zero there. BIG takes the quadrature of ig; the other parameters
    of the boundary methods stay at their defaults.

    For a plain gradient and to=bsm, lipschitz_bound = ||g(x) - g(x')|| / ||x - x'||, in pixel units: a lower bound of
    the local Lipschitz constant of g, the gradient of f_c (normal=fc) or of f_c - f_c' (normal=diff).

    Raises:
        NoValue: the class is not the predicted one, whose boundary it is; the search failed; the map is zero; the maps
            differ in shape.
    """
    e, method = case.explainer, case.explainer.spec.name
    if int(case.logits.argmax()) != case.target:
        raise NoValue("the class is not the one that the network predicts, whose boundary is sought")
    name = to if to != "auto" else "big" if method == "ig" else "bsm"
    sign = "abs_sample" if e.complete()["sign"] == "abs_sample" else "signed"  # abs comes after, as the score says
    settings = {"output": case.method_output, "space": case.space, "sign": sign}
    settings |= {k: str(v) for k, v in (("search", search), ("search_steps", search_steps)) if k in SEARCH[name]}
    if name == "bsm":
        settings["normal"] = normal
    if name == "big" and method == "ig":
        settings |= {k: str(e.complete()[k]) for k in ("rule", "steps")}
    boundary, notes = yield Beside(write_expression(name, settings))
    if not notes.get("success") and not e.dry:
        raise NoValue(f"{name}: the search found no boundary")
    if boundary.shape != case.map.shape:
        raise NoValue(f"maps of {method} have no channels, those of {name} have: choose reduce=mean")

    own, other = case.map.double(), boundary.double()
    bound = None
    distance = notes.get("distance")
    gradient = method == "grad" and not e.wrappers and sign == case.sign == "signed"
    if gradient and name == "bsm" and case.reduce == "none":
        here = own
        if normal == "diff":  # the same function on both sides
            rival = int(notes.get("other_class") or 0)
            alone = stack(1, lambda indices: case.pixels.expand(len(indices), *case.pixels.shape), case.pixels)
            maps = yield Maps(("clean",), alone, targets=(rival,))
            here = own - maps[0].double()
        gap = (here - other) / case.unit(case.space).cpu()
        bound = float(gap.norm()) / distance if distance else None

    size, length, raw = float(own.norm()), float(other.norm()), float((own - other).norm())
    if size == 0:
        raise NoValue("the map is zero everywhere")
    if length == 0 and measure == "cosine":
        raise NoValue(f"the map of {name} is zero everywhere, and has no direction")
    found = {"raw": raw, "relative": raw / size}
    if length > 0:
        found["cosine"] = max(0.0, 1 - float((own * other).sum()) / (size * length))
    return Finding(found[measure], details={**found, "distance": distance, "lipschitz_bound": bound})
