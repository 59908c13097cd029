"""What the paper of a preset printed beside what the run found, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrsens.cli import console
from attrsens.engine.beside import Beside, beside

if TYPE_CHECKING:
    from attrsens.engine.report import Report

WIDE = 12


def show(report: Report) -> None:
    """The published numbers with this run's, under what differs between the two."""
    preset = report.config["preset"]
    console.out(f"preset {preset['name']}: published, and here")
    for name, text in differences(report).items():
        console.row(f"  {name:<{WIDE}}{text}")
    rows = beside(report)
    if isinstance(preset["published"], str):
        console.row(f"  {'published':<{WIDE}}{preset['published'] or 'no numbers'}")
    elif rows:
        console.out(f"  {'published':<{WIDE + 2}}{'here':<10}{'95 %':<22}n")
        for row in rows:
            console.row("  " + _line(row))
    console.out("")


def differences(report: Report) -> dict[str, str]:
    """What the published numbers are of, and what this run's are of."""
    config, preset = report.config, report.config["preset"]
    images = len({record.image.sha256 for record in report.records})
    models = [f"{name} ({i + 1})" for i, name in enumerate(config["model"])]
    given = ", ".join(config["images"]) or "a sample"
    out = {"paper": preset["setting"] or "models and data not stated"}
    out["here"] = f"{', '.join(models)}; {images} {'image' if images == 1 else 'images'} of {given[:60]}"
    if preset["overruled"]:
        out["typed"] = f"{', '.join(preset['overruled'])} instead of the preset's"
    if preset["lost"]:
        out["lost"] = preset["lost"]
    if preset["scale"] and preset["scale"]["factor"] != 1:
        out["pixels"] = _scaled(preset["scale"])
    return out


def _scaled(scale: dict[str, Any]) -> str:
    values = "; ".join(
        f"{name} {', '.join(f'{old} is {new}' for old, new in found.items())}"
        for name, found in scale["values"].items()
    )
    return f"meant for {scale['side']} a side, here {scale['crop']}: {values or 'none are stated'}"


def _line(row: Beside) -> str:
    if row.text:
        return f"{row.of}: {row.text}"
    spread = f" sd {row.published_sd:g}" if row.published_sd is not None else ""
    interval = f"{row.ci95[0]:.3g} to {row.ci95[1]:.3g}" if row.ci95 else "-"
    value = "-" if row.mean is None else f"{row.mean:.4g}"
    what = f"{'ratio of ' if row.ratio else ''}{row.quantity}, {row.of}"
    told = f" ({row.reason})" if row.reason else f" ({row.model})" if row.model and not row.ratio else ""
    return f"{f'{row.published:g}{spread}':<{WIDE + 2}}{value:<10}{interval:<22}{row.n:<4}{what}{told}"
