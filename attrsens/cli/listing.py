"""`attrsens list`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from attrsens.cli import console, options
from attrsens.engine.presets import Preset, presets
from attrsens.errors import unknown
from attrsens.params import written
from attrsens.samples import samples
from attrsens.spec import ATTACKS, METHODS, SCORES, SIMILARITIES, WRAPPERS, Spec
from attrsens.training import RECIPES


def _methods() -> list[dict[str, Any]]:
    return [_entry(registry[name]) for registry in (METHODS, WRAPPERS) for name in registry]


def _entry(spec: Spec) -> dict[str, Any]:
    """A method or wrapper; a wrapper takes gradients if its method does, which is null."""
    return {
        "name": spec.name,
        "kind": spec.kind,
        "version": spec.version,
        "summary": spec.summary,
        "cost": spec.traits.get("cost"),
        "gradient": spec.traits.get("gradient"),
        "parameters": [
            {"name": h.name, "type": h.type.__name__, "default": h.default, **asdict(h.param)} for h in spec.hypers
        ],
    }


def _attacks() -> list[dict[str, Any]]:
    rows = []
    for name in ATTACKS:
        traits = ATTACKS[name].traits
        row = _entry(ATTACKS[name]) | {"source": traits.get("source"), "maps": bool(traits.get("maps", True))}
        row.pop("gradient")
        rows.append(row | {"target": bool(traits.get("target")), "differentiable": bool(traits.get("differentiable"))})
    return rows


def _models() -> list[dict[str, Any]]:
    from attrsens.models.nets import net_names
    from attrsens.models.zoo import known_models, known_sources

    kinds = {"model": known_models(), "form": known_sources(), "architecture": net_names()}
    return [{"name": n, "kind": kind, "summary": text} for kind, rows in kinds.items() for n, text in rows.items()]


def _samples() -> list[dict[str, Any]]:
    return [asdict(s) | {"path": str(s.path)} for s in samples().values()]


def _metrics() -> list[dict[str, Any]]:
    rows = []
    for registry in (SCORES, SIMILARITIES):
        for name in registry:
            traits = registry[name].traits
            facts = {key: traits.get(key) for key in ("formula", "direction", "range", "unit", "source")}
            row = _entry(registry[name]) | facts | {"cost": traits.get("cost", "none")}
            row.pop("gradient")
            rows.append(row | {"annotations": bool(traits.get("regional"))})
    return rows


def _recipes() -> list[dict[str, Any]]:
    return [_entry(RECIPES[name]) for name in RECIPES]


def _presets() -> list[dict[str, Any]]:
    return [preset.entry() for preset in presets()]


WHAT: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "methods": _methods,
    "metrics": _metrics,
    "attacks": _attacks,
    "models": _models,
    "presets": _presets,
    "recipes": _recipes,
    "samples": _samples,
}


def listing(
    what: Annotated[
        str,
        typer.Argument(
            help="methods, metrics, attacks, models, presets, recipes or samples.", autocompletion=lambda: [*WHAT]
        ),
    ],
    json: options.JsonList = None,
) -> None:
    """What there is: methods, metrics and attacks with parameters, defaults, sources, costs; models; presets; recipes
    of training; samples."""
    if what not in WHAT:
        raise unknown("list", what, WHAT)
    rows = WHAT[what]()
    if json:
        console.write_json(rows, json)
        return
    PRINTERS[what](rows)


def _print_methods(rows: list[dict[str, Any]]) -> None:
    width = max(len(row["name"]) for row in rows) + 3
    kind = "method"
    for row in rows:
        if row["kind"] != kind:
            kind = row["kind"]
            console.out("\nWrappers, around any method, as in sg:n=50+smooth:n=20:")
        name = row["name"] if kind == "method" else f"+{row['name']}"
        console.out(f"{name:<{width}}{row['summary']}  [{row['cost']}]")
        for p in row["parameters"]:
            _print_parameter(p)


def _print_parameter(p: dict[str, Any]) -> None:
    default = written(p["default"]) if p["default"] != "" else "none"
    line = f"        {p['name']:<15}{default:<10}" if len(p["name"]) < 15 else f"        {p['name']} {default:<8}"
    line += f"{'' if line.endswith(' ') else '  '}{p['help']}"
    if p["choices"]:
        line += f"; one of {', '.join(p['choices'])}"
    if p["sweep"]:
        line += f"; sweep {', '.join(map(written, p['sweep']))}"
    console.out(line + (f"  ({p['source']})" if p["source"] else ""))


def _print_metrics(rows: list[dict[str, Any]]) -> None:
    common = {h.name for h in SCORES.common}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        same = [row for row in rows if row["kind"] == kind]
        width = max(len(row["name"]) for row in same) + 2
        console.out(f"{kind[0].upper()}{kind[1:]}:" if kind == "score" else "\nSimilarities of two maps:")
        for row in same:
            better = {"higher": "higher is better", "lower": "lower is better"}.get(row["direction"], "no direction")
            low, high = ("unbounded" if end is None else f"{end:g}" for end in row["range"])
            wants = "; needs --annotations" if row["annotations"] else ""
            console.out(f"{row['name']:<{width}}{row['summary']}  [{row['cost']}{wants}]")
            console.out(f"        {row['formula']}")
            console.out(f"        {better}; from {low} to {high}; {row['source']}")
            for p in row["parameters"]:
                if p["name"] not in common or p["default"] != "method":
                    _print_parameter(p)
    console.out("\nEvery score also has:")
    for hyper in SCORES.common:
        console.out(f"        {hyper.name:<15}{hyper.default!s:<10}{hyper.param.help}")


def _print_attacks(rows: list[dict[str, Any]]) -> None:
    width = max(len(row["name"]) for row in rows) + 3
    for row in rows:
        fits = "differentiable methods" if row["differentiable"] else "any method"
        fits = fits if row["maps"] else "no map: the image alone"
        console.out(f"{row['name']:<{width}}{row['summary']}  [{row['cost']}]")
        console.out(f"        attacks {fits}; {row['source']}")
        for p in row["parameters"]:
            _print_parameter(p)


def _print_models(rows: list[dict[str, Any]]) -> None:
    titles = {"form": "Also:", "architecture": "Architectures for --arch, besides torchvision's and timm/NAME:"}
    kind = "model"
    for row in rows:
        if row["kind"] != kind:
            kind = row["kind"]
            console.out(f"\n{titles[kind]}")
        console.out(f"{row['name']:<34}{row['summary']}")


def _print_recipes(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        console.out(f"{row['name']:<8}{row['summary']}")
        for p in row["parameters"]:
            _print_parameter(p)


def _print_samples(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        console.out(
            f"sample:{row['name']:<12}{row['what']}  [lite0: {row['top1']} {row['probability']:.2f}]  "
            f"{row['source']}, {row['licence']}"
        )


def _print_presets(rows: list[dict[str, Any]]) -> None:
    width = max(len(row["name"]) for row in rows) + 2
    for row in rows:
        preset = Preset(**row)
        console.out(f"{preset.name:<{width}}{preset.command:<9}{preset.what}  [{preset.cost}]")
        facts = {
            "asks": preset.question,
            "published": preset.numbers(),
            "paper's": preset.setting,
            "follows": preset.follows,
            "lost": preset.lost,
            "pixels": preset.side and f"sizes are meant for {preset.side} pixels a side, and scaled to the model's",
            "models": preset.pair and f"two, the regular one first, such as {preset.pair}",
            "source": preset.source,
        }
        for name, text in facts.items():
            if text:
                console.out(f"        {name:<11}{text}")


PRINTERS = {
    "methods": _print_methods,
    "metrics": _print_metrics,
    "attacks": _print_attacks,
    "models": _print_models,
    "presets": _print_presets,
    "recipes": _print_recipes,
    "samples": _print_samples,
}
