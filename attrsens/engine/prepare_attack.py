"""Checking a request to attack, cheapest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrsens.engine.attack_tables import quantities
from attrsens.engine.budgets import checked_budgets
from attrsens.engine.cell import Call, parse_call
from attrsens.engine.metrics import Flags
from attrsens.engine.prepare import Prepared, asked, prepare, texts
from attrsens.engine.targets import checked
from attrsens.errors import AttrsensError, unknown
from attrsens.spec import ATTACKS, METHODS, WRAPPERS, Spec, split_expression

USUAL = "spearman,hog,ssim,topk_overlap,centre_shift"  # similarities to the clean map
BESIDE = "cosine"  # of the maps beside a search of the boundary
SPANS = ("11", "01")  # of what LPIPS is fed: [-1, 1], [0, 1]
BOUNDARY = ("grad", "bsm", "ig", "big")


def prepare_attack(
    images: Any = (),
    *,
    kind: str = "manipulate",
    attack: Mapping[str, object] = MappingProxyType({}),
    metrics: str | Sequence[str] | None = None,
    metric_parameters: Flags = MappingProxyType({}),
    method: str | Sequence[str] | None = None,
    lpips_backbone: str | Path | None = None,
    lpips_range: str = "11",
    **options: Any,
) -> Prepared:
    """As `prepare`, for attacks.

    Args:
        attack: parameters of the attack; `eps` may be several, as a comma list or a sequence, which makes a curve.
        method: where the attack is a search of the boundary, methods that search it too do so with its settings, but
            for those that the expression or `options` give.
        lpips_backbone, lpips_range: of `models.perceptual.Lpips`.

    Raises:
        AttrsensError: see `attrsens.attack`.
    """
    calls = attacks(kind, attack)
    if lpips_range not in SPANS:
        raise AttrsensError(f"lpips-range must be {' or '.join(SPANS)}; got {lpips_range!r}")
    spec = ATTACKS[kind]
    explains = bool(spec.traits.get("maps", True))
    methods = texts(method) or (list(BOUNDARY) if not explains else ["grad"])
    if not explains:
        methods = [_alike(text, calls[0], options) for text in methods]
    judging = asked(metrics, USUAL if explains else BESIDE, metric_parameters, None, None)
    if judging.scores:
        names = ", ".join(call.name for call in judging.scores)
        raise AttrsensError(f"{names}: attack measures how far maps move, by similarities; scores belong to score")
    eps = [call.parameters["eps"] for call in calls if "eps" in call.parameters]
    known = quantities(judging, spec, curve=len(set(eps)) > 1)
    prepared = prepare(images, **{"known": known} | options, method=methods)
    for call in prepared.request.calls:
        _check_method(call, spec)
    lpips = None
    if lpips_backbone is not None:
        from attrsens.models.perceptual import Lpips

        lpips = Lpips(lpips_backbone, lpips_range, str(prepared.request.classifiers[0].device))
    config = {
        **prepared.config,
        "kind": kind,
        "lpips": lpips.mark if lpips else None,
        "attacks": [call.expression for call in calls],
        "metrics": [call.expression for call in judging.similarities],
    }
    return replace(prepared, config=config, command="attack", judging=judging, attacks=tuple(calls), lpips=lpips)


def attacks(kind: str, given: Mapping[str, object]) -> list[Call]:
    """The calls that are meant: one for each budget, ascending.

    Raises:
        AttrsensError: an unknown attack or parameter, a value outside its range, or targets that contradict each other.
    """
    if kind not in ATTACKS:
        raise unknown("attack", kind, list(ATTACKS))
    for name in given:
        owners = ATTACKS.owners(name)
        if kind not in owners:
            known = f"attacks that have it: {', '.join(owners)}" if owners else "no attack has it"
            raise AttrsensError(f"{kind} has no parameter {name!r}; {known}")
    budgets: list[object] = [None]
    if "eps" in given:
        eps = given["eps"]
        budgets = list(eps) if isinstance(eps, (list, tuple)) else [e for e in str(eps).split(",") if e.strip()]
        if not budgets:
            raise AttrsensError("eps: no value given")
    calls: dict[str, Call] = {}
    for budget in budgets:
        values = dict(given) | ({} if budget is None else {"eps": budget})
        call = parse_call(kind, values, ATTACKS)
        checked(call)
        calls[call.expression] = call
    checked_budgets(ATTACKS[kind], list(calls.values()))
    return sorted(calls.values(), key=lambda call: float(call.parameters.get("eps", 0)))


def _alike(expression: str, call: Call, given: Mapping[str, object]) -> str:
    """A method's expression with the search of the attack, so that both are at one point, where the method searches the
    boundary and says nothing else."""
    head, *wrappers = split_expression(expression)
    name, _, values = head.partition(":")
    own = {hyper.name for hyper in METHODS[name.strip()].own()} if name.strip() in METHODS else set()
    if "search" not in own:
        return expression
    said = {pair.partition("=")[0].strip() for pair in values.split(",")} | set(given)
    search = {"search_steps" if k == "steps" else k: v for k, v in call.parameters.items()}
    pairs = [values] if values.strip() else []
    pairs += [f"{k}={v}" for k, v in search.items() if k in own - said]
    return "+".join([f"{name}:{','.join(pairs)}" if pairs else name, *wrappers])


def _check_method(call: Call, spec: Spec) -> None:
    """Raise where an attack that follows gradients cannot follow those of the method.

    Raises:
        AttrsensError: it cannot.
    """
    if not spec.traits.get("differentiable"):
        return
    for registry, name in ((METHODS, call.name), *((WRAPPERS, w.name) for w in call.wrappers)):
        if not registry[name].traits.get("differentiable"):
            fit = [n for n in registry if registry[n].traits.get("differentiable")]
            raise AttrsensError(
                f"{spec.name} follows the gradient of a map, and {name} has none; {registry.kind}s that have one: "
                f"{', '.join(fit)}; --kind random attacks any"
            )
