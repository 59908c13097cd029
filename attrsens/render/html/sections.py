"""The parts of the page besides the images. SECTIONS is the list to extend: what returns something is shown."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attrsens.engine.report import Report
from attrsens.render.html import tables
from attrsens.render.html.attacks import attacks
from attrsens.render.html.effects import effects
from attrsens.render.html.markup import Html, details, join, num, table, tag
from attrsens.render.html.names import DASH, Names, number
from attrsens.render.words import subject

FIGURES = 1_500_000  # bytes of all inlined figures, encoded
MOST = 300  # failures, and inputs left out
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Section:
    """A part of the page: its id and title, and what makes it of (report, names, folder); None is nothing to show."""

    slug: str
    title: str
    make: Callable[[Report, Names, Path], Html | None]


def gates(report: Report, names: Names, folder: Path) -> Html | None:
    rows: list[list[object]] = []
    for g in report.gates:
        seen = number(g.observed) if g.observed is not None else "no value"
        count = f"{g.failed} of {g.rows} rows fail" if g.rows else DASH
        worst = names.group(g.group) if g.group else DASH
        rows.append([tag("td", _verdict(g.passed)), tag("code", g.expression), num(seen), count, worst, g.reason or ""])
    if not rows:
        return None
    header: list[object] = ["", "fails if", tables.num_head("observed"), "rows", "worst row", "why"]
    tables.compact(header, rows)
    return table(None, header, rows, "gates")


def failures(report: Report, names: Names, folder: Path) -> Html | None:
    rows = [[subject(f), f.stage, f.message] for f in report.failures[:MOST]]
    if not rows:
        return None
    return join(
        [table(None, ["input", "stage", "message"], rows, "words"), tables.rest(len(rows), len(report.failures))]
    )


def skipped(report: Report, names: Names, folder: Path) -> Html | None:
    rows = [[s.image, s.model, s.reason] for s in report.skipped[:MOST]]
    if not rows:
        return None
    body = [table(None, ["input", "model", "reason"], rows, "words"), tables.rest(len(rows), len(report.skipped))]
    return details(f"{len(report.skipped)} inputs left out on request", body)


def figures(report: Report, names: Names, folder: Path) -> Html | None:
    """Pictures of the folder, inlined while there is room, else named."""
    shown: list[Html] = []
    room = FIGURES
    for name in report.figures:
        data = _png(folder, name, room * 3 // 4 - 100)
        title = Path(name).stem.replace("-", " ").replace("_", " ")
        if data is None:
            shown.append(tag("p", tag("code", name), class_="note"))
            continue
        room -= len(data) * 4 // 3 + 100
        uri = "data:image/png;base64," + base64.b64encode(data).decode()
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        picture = tag("img", src=uri, alt=f"Figure {title} of attrsens {report.command}", width=width, height=height)
        shown.append(tag("figure", picture, tag("figcaption", name), class_="picture"))
    if not shown:
        return None
    twice = report.command == "compare"  # the page has the same as tables and cards
    return details(f"{len(report.figures)} figures", shown, open_=not twice)


def _png(folder: Path, name: str, room: int) -> bytes | None:
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()) or path.stat().st_size > room:
            return None
        data = path.read_bytes()
    except (OSError, ValueError):
        return None
    return data if data.startswith(PNG) and len(data) > 24 else None


def configuration(report: Report, names: Names, folder: Path) -> Html | None:
    rows = [[key, _words(value)] for key, value in report.config.items()]
    return details("Every option as it was resolved", table(None, ["option", "value"], rows, "words"))


def provenance(report: Report, names: Names, folder: Path) -> Html | None:
    """What ran, and the passes: those that maps and scores cost, each by itself, against those that were made."""
    p = report.provenance
    maps = [record.passes for record in report.records]
    scores = [score.passes for record in report.records for score in record.scores.values()]
    planned: list[tuple[str, Any]] = [("maps, each by itself", maps), ("scores, each by itself", scores)]
    rows = [[name, *(num(sum(getattr(x, way) for x in of)) for way in ("forward", "backward"))] for name, of in planned]
    if p.passes_planned is not None:
        rows.append(
            [
                "planned for maps and predictions, work shared",
                num(p.passes_planned.forward),
                num(p.passes_planned.backward),
            ]
        )
    rows.append(["made by this run", num(p.passes_run.forward), num(p.passes_run.backward)])
    passes = table(
        "Images that went through the network",
        ["passes", tables.num_head("forward"), tables.num_head("backward")],
        rows,
    )
    facts: list[tuple[str, object]] = [
        ("command line", tag("code", shlex.join(p.argv))),
        ("started", p.started),
        ("seconds", f"{p.seconds:.1f}"),
        ("device", f"{p.device}, {p.threads} threads"),
        ("peak memory", f"{p.peak_memory_mb:.0f} MB" if p.peak_memory_mb else DASH),
        ("maps and scores from the cache", str(p.cached_cells)),
        ("damaged entries of the cache", str(p.damaged_cells)),
        ("interrupted", "yes" if p.interrupted else "no"),
        *((f"version of {name}", version) for name, version in p.versions.items()),
        *((f"weights of {model}", tag("code", sha or DASH)) for model, sha in p.weights.items()),
    ]
    note = (
        "Work that maps share, and what the cache holds, is not paid for twice; floors, ceilings and predictions cost "
    )
    note += "passes that no map or score counts."
    return join([passes, tag("p", note, class_="note"), table(None, ["", "this run"], facts, "words")])


def _words(value: Any) -> Html:
    if isinstance(value, (list, tuple)) and value:
        return tag("ul", [tag("li", _words(v)) for v in value])
    if isinstance(value, dict):
        return join([f"{key}: {_flat(v)}" for key, v in value.items()], "; ") if value else join([DASH])
    return join([_flat(value)])


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_flat(v)}" for key, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_flat, value)) or DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return DASH if value is None else str(value)


def _verdict(passed: bool) -> Html:
    return tag("b", "passed" if passed else "failed", class_="good" if passed else "bad")


IMAGES = Section("images", "Images", lambda report, names, folder: None)  # made by the page itself, in its place here
SECTIONS: list[Section] = [
    Section("gates", "Gates", gates),
    Section("failures", "Failures", failures),
    Section("attacks", "Attacks", lambda report, names, folder: attacks(report, names)),
    Section("effects", "Which knob matters", lambda report, names, folder: effects(report, names)),
    Section("results", "Over images", lambda report, names, folder: tables.results(report, names)),
    IMAGES,
    Section("comparisons", "Comparisons", lambda report, names, folder: tables.comparisons(report, names)),
    Section("figures", "Figures", figures),
    Section("skipped", "Left out", skipped),
    Section("configuration", "Configuration", configuration),
    Section("provenance", "Provenance", provenance),
]
