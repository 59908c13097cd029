"""Figures of the page and the README, from kept numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from estimates import Estimate
from study import LADDER

BUDGETS = (0.0, 0.25, 0.5, 1.0)
PANELS = (  # title, study, lines: name and key
    (
        "largest sensitivity of 50 (lower: steadier)",
        "hse-levels",
        {"grad": "grad, max_sensitivity", "grad+smooth": "grad+smooth, max_sensitivity"},
    ),
    (
        "faithfulness (higher: better)",
        "hse-levels",
        {"grad": "grad, faithfulness", "grad+smooth": "grad+smooth, faithfulness"},
    ),
    (
        "cosine distance to the boundary's (lower: nearer)",
        "bnd-dose",
        {"grad to bsm": "grad to bsm", "ig to agi": "ig to agi"},
    ),
)
COLOURS = ("#2166ac", "#b2182b")


def draw(results: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """ladder.png, where the numbers of all its panels are kept."""
    if all("numbers" in results.get(study, {}) for _, study, _ in PANELS):
        _ladder([(title, results[study]["numbers"], lines) for title, study, lines in PANELS], folder / "ladder.png")


def _ladder(panels: Sequence[tuple[str, Mapping[str, Any], Mapping[str, str]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.1), dpi=110, layout="constrained")
    for axes, (title, numbers, lines) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for (name, key), colour in zip(lines.items(), COLOURS, strict=True):
            found = [Estimate.of(numbers[f"{key}, {net}"]) for net in LADDER]
            means = [e.value for e in found]
            ends = [[abs((e.ci95 or (e.value, e.value))[i] - e.value) for e in found] for i in (0, 1)]  # type: ignore[operator]
            axes.errorbar(BUDGETS, means, ends, marker="o", ms=4, lw=1.3, capsize=3, color=colour, label=name)
        axes.set_title(title, fontsize=8.5)
        axes.set_xticks(BUDGETS)
        axes.set_xlabel("L2 budget of the training", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
