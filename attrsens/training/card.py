"""What is told of a trained network: the card in its file, and the same for people beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrsens.models.checkpoints import printable


def readable(card: Mapping[str, Any], seconds: float, curves: list[dict[str, Any]]) -> str:
    """The card as Markdown."""
    recipe, data, val = card["recipe"], card["data"], card["validation"]
    settings = ", ".join(f"{k} {_number(v)}" for k, v in recipe["parameters"].items())
    names, trained, measured = list(map(_cell, card["classes"])), _cell(data["name"]), _cell(val["name"])
    lines = [f"# {card['name']}", ""]
    rows = [
        ("architecture", f"`{card['architecture']}`, {card['parameters']:,} parameters"),
        ("input", _input(card["preprocess"])),
        ("classes", ", ".join(names) if len(names) <= 20 else f"{len(names)}"),
        ("recipe", f"`{recipe['name']}` version {recipe['version']}: {settings}"),
        ("starts from", _cell(card["start"]["name"]) if card["start"] else "random weights"),
        (
            "trained on",
            f"{trained}, {data['images']:,} images (sha256 of pixels and labels {data['sha256']})",
        ),
        ("held out", f"{data['held_out']:,} of its images, for the curve below"),
        ("measured on", f"{measured}, {val['images']:,} images (sha256 {val['sha256']})"),
        ("made by", ", ".join(f"{k} {v}" for k, v in card["versions"].items())),
        ("machine", f"{card['device']}, {card['threads']} threads, {card['precision']}{_minutes(seconds)}"),
    ]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    lines += ["| accuracy | budget | images | |", "|---|---|---:|---:|"]
    for a in card["accuracy"]:
        budget = "" if a["norm"] is None else f"{a['norm']} {_eps(a['eps'])}"
        lines.append(f"| {a['kind']} | {budget} | {a['n']:,} | {a['value']:.1%} |")
    lines += [""]
    for f in recipe["fallbacks"]:
        lines += [
            f"Epoch {f['epoch']} was lost to catastrophic overfitting (held-out accuracy {f['accuracy']:.1%} after "
            f"{f['best']:.1%}); from the last good epoch on the recipe was `{f['recipe']}` with {f['steps']} steps.",
            "",
        ]
    lines += ["| epoch | loss | held-out clean | held-out adversarial (PGD-10) |", "|---:|---:|---:|---:|"]
    lines += [f"| {r['epoch']} | {r['loss']:.3f} | {r['clean']:.1%} | {r['adversarial']:.1%} |" for r in curves]
    return "\n".join(lines) + "\n"


def _input(steps: Mapping[str, Any]) -> str:
    numbers = (", ".join(f"{v:g}" for v in steps[k]) for k in ("mean", "std"))
    mean, std = numbers
    return f"{steps['crop']} x {steps['crop']} px (short side {steps['resize']}), mean {mean}, std {std}"


def _cell(text: str) -> str:
    """A name that may be anything, as a part of a row."""
    return printable(text)[:100].translate({ord(c): f"\\{c}" for c in "\\`*_[]<>|"})


def _minutes(seconds: float) -> str:
    """How long it took, where that is known."""
    return f", {seconds / 60:.0f} min" if seconds else ""


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _eps(eps: float) -> str:
    """In 255ths where that is a whole number."""
    parts = eps * 255
    return f"{round(parts)}/255" if abs(parts - round(parts)) < 1e-6 and parts else f"{eps:g}"
