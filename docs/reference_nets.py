"""The networks that `docs/reference_nets.sh` trained, as a page: `python docs/reference_nets.py FOLDER [FILE.md]`.

Everything is read from their reports (`NAME.json`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "reference-nets.md"
BUDGETS = (("linf", 2 / 255, "L-infinity 2/255"), ("linf", 8 / 255, "L-infinity 8/255"), ("l2", 0.5, "L2 0.5"))
INTRODUCTION = """\
# Reference networks

*Written by `python docs/reference_nets.py docs/reproduction/nets` from the reports of trainings; do not edit.* Made by
`docs/reference_nets.sh`; the names that begin with `cifar10-` are shipped, and load offline by their names. Accuracies
are those of the CIFAR-10 test images as JPEG scans (quality 75): clean on all of them, under attack on a
thousand, PGD with 20 steps and AutoPGD (cross-entropy, then the difference of logits ratio, 50 steps each), in float32.
"""


def page(folder: Path) -> str:
    """The whole page, as Markdown."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    reports = [r for r in reports if r.get("command") == "train"]
    reports.sort(key=lambda r: (not r["model"]["name"].startswith("cifar10-"), r["model"]["name"]))
    heads = ["network", "recipe", "seed", "epochs", "parameters", "clean"]
    heads += [f"{kind}, {words}" for _, _, words in BUDGETS for kind in ("PGD-20", "AutoPGD")]
    lines = [INTRODUCTION, _row(heads), _row(["---"] * len(heads))]
    lines += [_row(_cells(r)) for r in reports]
    lines += ["", "## How they were trained", ""]
    lines += ["Held-out accuracy (1,000 training images; the adversary's on 512, PGD-10) of the averaged weights.", ""]
    for r in reports:
        lines += [f"### {r['model']['name']}", "", _told(r), ""]
        rows = r["curves"]
        some = sorted({0, len(rows) - 1, *range(4, len(rows), 5)} & set(range(len(rows))))
        lines += ["| epoch | loss | clean | adversarial |", "|---:|---:|---:|---:|"]
        lines += [
            f"| {rows[i]['epoch']} | {rows[i]['loss']:.3f} | {rows[i]['clean']:.1%} | {rows[i]['adversarial']:.1%} |"
            for i in some
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(r: dict[str, Any]) -> list[str]:
    model, parameters = r["model"], r["model"]["recipe"]["parameters"]
    found = {(a["kind"], a["norm"], round(a["eps"] or 0, 6)): a["value"] for a in r["accuracy"]}
    clean = next(a["value"] for a in r["accuracy"] if a["kind"] == "clean")
    cells = [f"`{model['name']}`", _recipe(model["recipe"]), str(parameters["seed"]), str(parameters["epochs"])]
    cells += [f"{model['parameters']:,}", f"{clean:.1%}"]
    for norm, eps, _ in BUDGETS:
        for kind in ("PGD-20", "AutoPGD"):
            value = found.get((kind, norm, round(eps, 6)))
            cells.append("" if value is None else f"{value:.1%}")
    return cells


def _recipe(recipe: dict[str, Any]) -> str:
    p = recipe["parameters"]
    words = {"linf": "L-infinity", "l2": "L2"}
    return recipe["name"] + (f", {words[p['norm']]} {p['eps']:.3g}" if "norm" in p else "")


def _told(r: dict[str, Any]) -> str:
    model = r["model"]
    settings = ", ".join(
        f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in model["recipe"]["parameters"].items()
    )
    start = f" From `{model['start']['name']}`." if model["start"] else ""
    falls = "; ".join(f"epoch {f['epoch']}, then {f['recipe']}" for f in r["fallbacks"]) or "none"
    return (
        f"`{model['recipe']['name']}`: {settings}.{start} {model['data']['images']:,} images, {model['precision']}, "
        f"{model['threads']} threads, {r['provenance']['seconds'] / 60:.0f} minutes beside other work. "
        f"Catastrophic overfitting: {falls}."
    )


if __name__ == "__main__":
    where = Path(sys.argv[2]) if len(sys.argv) > 2 else OUT
    where.write_text(page(Path(sys.argv[1])), encoding="utf-8")
