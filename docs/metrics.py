"""Every metric, and what it says where the answer is known: `python docs/metrics.py [FILE.md]`; a minute.

Captum and Quantus, the extra `test` has both, are asked beside attrsens.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import _on_answers as answers
import _on_changes as on_changes
import _on_maps as maps
from _scenes import Other, Row, Said

from attrsens.spec import SCORES, SIMILARITIES, Hyper, Registry, Spec

OUT = Path(__file__).parent / "metrics.md"
FAMILIES = (
    *(answers.curves, answers.infidelity, answers.faithfulness),
    *(on_changes.sensitivity, on_changes.stability, on_changes.networks),
    *(maps.sparseness, maps.localisation, maps.similarities),
)
BETTER = {"higher": "higher is better", "lower": "lower is better", "none": "no direction"}
HEAD = ("metric", "fixture", "true value", "attrsens", "Captum 0.9", "Quantus 0.6", "paper's formula", "verdict")
INTRODUCTION = """\
# Metrics

*Written by `python docs/metrics.py`; do not edit.* Two parts: what every metric says where the true value is known,
beside Captum 0.9, Quantus 0.6 and the formula of the paper; then every metric with its definition, parameters and
sources, as `attrsens list metrics` has them.

## Against closed forms

Networks have one channel, 4 x 4 pixels unless a fixture says otherwise, two logits of which the second is 0, and no
normalisation; x is 1/32, 2/32 ... 16/32, or 1/2 everywhere, and w normal numbers. A true value follows from the
fixture on paper, and the phrase below it says how; where copies of the image are drawn, everybody is given the same
ones. The paper's formula is typed in NumPy and knows nothing of attrsens.

Quantus is asked neither to normalise maps nor to take magnitudes, unless its call says so; np.trapz, which it needs
and NumPy 2.4 no longer has, is given back to it. A dash: the library has no such metric, or none that this variant
could be held against. "Equal" means within 0.000001, and for `gini` 0.000003, since Quantus adds 1e-7 to every
magnitude.
"""


def rows() -> Iterator[Row]:
    """All fixtures of registered metrics."""
    for family in FAMILIES:
        yield from (row for row in family() if row.name in SCORES or row.name in SIMILARITIES)


def number(value: Said) -> str:
    """Six digits behind the point at most."""
    if isinstance(value, bool | str):
        return str(value)
    return f"{round(value, 6) + 0.0:.6f}".rstrip("0").rstrip(".") if math.isfinite(value) else str(value)


def agrees(row: Row, value: Said) -> bool:
    return not isinstance(value, str) and abs(value - row.true) <= row.tolerance


def line(row: Row, others: bool = True) -> list[str]:
    """The cells of a row; without `others` those of the libraries are empty, and so is the verdict.

    Raises:
        SystemExit: a value differs and the fixture does not say why, or does not differ and the fixture says why.
    """
    ours = row.ours()
    if not agrees(row, ours):
        raise SystemExit(f"{row.metric}, {row.fixture}: {ours} instead of {row.true}")
    cells, reasons = [], []
    asked: list[tuple[str, Other | None]] = [("Captum", row.captum), ("Quantus", row.quantus), ("Paper", row.paper)]
    for who, other in asked:
        if other is None:
            cells.append("–")
        elif who == "Paper" or others:
            value = other.call()
            if agrees(row, value) == bool(other.differs):
                raise SystemExit(f"{row.metric}, {row.fixture}: {who} says {value} for {row.true}: {other.differs!r}")
            label = other.name if who == "Paper" else f"`{other.name}`" if other.name else ""
            cells.append(f"{number(value)}{f'<br>{label}' if label else ''}")
            if other.differs:
                reasons.append(f"{other.name or 'the paper' if who == 'Paper' else who}: {other.differs}")
        else:
            cells.append("")
    verdict = ("; ".join(reasons) or "equal") if others else ""
    first = [f"`{row.metric}`", row.fixture, f"{number(row.true)}<br>{row.why}", number(ours)]
    return [cell.replace("|", "\\|") for cell in (*first, *cells, verdict)]


def table(others: bool = True) -> list[list[str]]:
    return [line(row, others) for row in rows()]


def bar(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def unknown() -> list[str]:
    """Metrics without a fixture."""
    known = {row.name for row in rows()}
    return [name for registry in (SCORES, SIMILARITIES) for name in registry if name not in known]


def comparison(cells: list[list[str]]) -> str:
    missing = ", ".join(f"[{name}](#{name})" for name in unknown())
    parts = [bar(HEAD), bar(("---",) * len(HEAD)), *map(bar, cells)]
    return "\n".join(parts) + (f"\n\nNo closed form here: {missing}.\n" if missing else "\n")


# -- the registry ------------------------------------------------------------------------------------------------


def reference() -> str:
    """Every metric as the registry has it."""
    parts = [
        "## Scores\n\nNames in braces are parameters.\n",
        common(),
        *(entry(SCORES, SCORES[name]) for name in SCORES),
    ]
    if len(SIMILARITIES):
        parts += ["## Similarities\n", *(entry(SIMILARITIES, SIMILARITIES[name]) for name in SIMILARITIES)]
    return "\n".join(parts)


def common() -> str:
    return "Every score also takes, where it does not list its own:\n\n" + parameters(SCORES.common)


def entry(registry: Registry, spec: Spec) -> str:
    t = spec.traits
    low, high = (number(end) if end is not None else "unbounded" for end in t["range"])
    facts = [f"{BETTER[t['direction']]}; from {low} to {high}"]
    facts += [f"unit: {t['unit']}"] if t.get("unit") else []
    facts += [f"cost: {t.get('cost', 'none')}"] if registry is SCORES else []
    facts += ["needs `--annotations`"] if t.get("regional") else []
    text = f"### {spec.name}\n\n{spec.summary}.\n\n    {t['formula']}\n\n"
    text += "".join(f"- {fact}\n" for fact in (*facts, f"source: {t['source']}"))
    own = [h for h in spec.hypers if h.name not in {c.name for c in registry.common} or h.default != "method"]
    return text + (f"\n{parameters(own)}" if own else "")


def parameters(hypers: list[Hyper] | tuple[Hyper, ...]) -> str:
    lines = [bar(("parameter", "default", "meaning", "source")), bar(("---",) * 4)]
    for h in hypers:
        default = h.default if h.default != "" else "none"
        default = str(default).lower() if isinstance(default, bool) else default
        text = h.param.help + (f"; one of {', '.join(h.param.choices)}" if h.param.choices else "")
        text += f"; sweep {', '.join(map(str, h.param.sweep))}" if h.param.sweep else ""
        lines.append(bar([c.replace("|", "\\|") for c in (f"`{h.name}`", str(default), text, h.param.source)]))
    return "\n".join(lines) + "\n"


def page(cells: list[list[str]]) -> str:
    return f"{INTRODUCTION}\n{comparison(cells)}\n{reference()}"


def main(out: Path = OUT) -> None:
    """Ask everybody, write."""
    out.write_text(page(table()), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
