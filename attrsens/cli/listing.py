"""`attrsens list`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from attrsens.cli import console, options
from attrsens.errors import unknown
from attrsens.samples import samples
from attrsens.spec import METHODS, WRAPPERS, Spec


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


def _models() -> list[dict[str, Any]]:
    from attrsens.models.nets import net_names
    from attrsens.models.zoo import known_models, known_sources

    kinds = {"model": known_models(), "form": known_sources(), "architecture": net_names()}
    return [{"name": n, "kind": kind, "summary": text} for kind, rows in kinds.items() for n, text in rows.items()]


def _samples() -> list[dict[str, Any]]:
    return [asdict(s) | {"path": str(s.path)} for s in samples().values()]


WHAT: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "methods": _methods,
    "models": _models,
    "samples": _samples,
}


def listing(
    what: Annotated[str, typer.Argument(help="methods, models or samples.", autocompletion=lambda: [*WHAT])],
    json: options.JsonList = None,
) -> None:
    """What there is: methods with parameters, defaults, sources and costs; models; packaged samples."""
    if what not in WHAT:
        raise unknown("list", what, WHAT)
    rows = WHAT[what]()
    if json:
        console.write_json(rows, json)
        return
    {"methods": _print_methods, "models": _print_models, "samples": _print_samples}[what](rows)


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
            default = p["default"] if p["default"] != "" else "none"
            line = f"        {p['name']:<15}{default!s:<10}{p['help']}"
            if p["choices"]:
                line += f"; one of {', '.join(p['choices'])}"
            if p["sweep"]:
                line += f"; sweep {', '.join(map(str, p['sweep']))}"
            console.out(line + (f"  ({p['source']})" if p["source"] else ""))


def _print_models(rows: list[dict[str, Any]]) -> None:
    titles = {"form": "Also:", "architecture": "Architectures for --arch, besides torchvision's and timm/NAME:"}
    kind = "model"
    for row in rows:
        if row["kind"] != kind:
            kind = row["kind"]
            console.out(f"\n{titles[kind]}")
        console.out(f"{row['name']:<34}{row['summary']}")


def _print_samples(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        console.out(
            f"sample:{row['name']:<12}{row['what']}  [lite0: {row['top1']} {row['probability']:.2f}]  "
            f"{row['source']}, {row['licence']}"
        )
