"""Numbers over images: tables of colours, aggregates, comparisons, effects, each with dots and whiskers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from attrsens.engine.agreement import CEILING, FLOOR, RESCALED, labels, matrices
from attrsens.engine.report import Aggregate, Comparison, Report
from attrsens.render.agreement import NOTE, says
from attrsens.render.html.markup import Html, details, grouped, join, num, table, tag
from attrsens.render.html.names import DASH, Members, Names, interval, number
from attrsens.render.html.plots import Axis, curves, matrix

MOST_ROWS = 400  # of a table
MOST_PLACES = 24  # of a table of colours
LINES = 8  # of mean curves in a panel
EMPTY = (num(DASH), "", DASH, tag("td", ""))  # cells of a column that may be left out


def results(report: Report, names: Names) -> Html | None:
    """What holds over images."""
    if not report.aggregates:
        return None
    coloured = _colours(report)
    return join([coloured, _curves(report, names), _aggregates(report, names, bool(coloured))])


def _colours(report: Report) -> list[Html]:
    try:
        found = [m for m in matrices(report) if 1 < len(m.groups) <= MOST_PLACES]
        tables = [matrix(f"{m.quantity}, n = {m.images}", labels(m.groups), m) for m in found]
    except (KeyError, TypeError):  # rows of another kind than compare's
        return []
    return [tag("p", NOTE, class_="note"), tag("div", tables, class_="matrices")] if tables else []


def _curves(report: Report, names: Names) -> list[Html]:
    """Mean curves over images, of maps that differ in nothing else."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    for record in report.records:
        for name, score in record.scores.items():
            if score.curve:
                found.setdefault(name, {}).setdefault(names.record(record), []).append(score.curve)
    panels = []
    images = len({record.image.path for record in report.records})
    for name, lines in found.items():
        means = [
            (label, [sum(values) / len(values) for values in zip(*lists, strict=True)])
            for label, lists in lines.items()
            if len({len(line) for line in lists}) == 1
        ]
        if means and images > 1:
            panels.append(curves(f"{name}, mean curve", means[:LINES], legend=len(lines) > 1))
    return [tag("div", panels, class_="plots")] if panels else []


def _aggregates(report: Report, names: Names, coloured: bool) -> list[Html]:
    """The rows of a quantity stand together, with floor, ceiling and rescaled value beside their mean; those of pairs
    unfold where tables of colours have shown them."""
    parts = {
        (row.quantity, repr(row.group)): row
        for row in report.aggregates
        if row.quantity.endswith((RESCALED, FLOOR, CEILING))
    }
    rows = [row for row in report.aggregates if (row.quantity, repr(row.group)) not in parts]
    lone = {q + s for q in {row.quantity for row in rows} for s in (RESCALED, FLOOR, CEILING)}
    rows += [row for row in parts.values() if row.quantity not in lone]
    about, members = definitions(report), Members(report.records)
    apart = [row for row in rows if coloured and "to" in row.group]
    out = []
    for mine in ([row for row in rows if row not in apart], apart):
        lines: dict[str, list[list[object]]] = {}
        for row in mine[:MOST_ROWS]:
            lines.setdefault(row.quantity, []).append(_aggregate(row, parts, members, names))
        header: list[object] = ["of", num_head("mean"), "", "95 % interval"]
        header += map(num_head, ("n", "missing", "floor", "ceiling", "rescaled", "sd"))
        draw(lines, header)
        groups = [(head(says(q), *about.get(q, ("", ""))), found) for q, found in lines.items()]
        whole = join([grouped(None, header, groups, "rows"), rest(min(len(mine), MOST_ROWS), len(mine))])
        if mine:
            out.append(details(f"The pairs with their intervals: {len(mine)}", whole) if mine is apart else whole)
    return out


@dataclass(frozen=True)
class Dots:
    """A cell that is drawn once the axis of its quantity is known."""

    value: float | None
    ends: tuple[float, float] | None
    floor: float | None = None
    ceiling: float | None = None


def _aggregate(row: Aggregate, parts: dict[tuple[str, str], Aggregate], members: Members, names: Names) -> list[object]:
    floor, ceiling, scaled = (parts.get((row.quantity + s, repr(row.group))) for s in (FLOOR, CEILING, RESCALED))
    low, high = _bounds(members, row, floor, ceiling)
    return [
        names.group(row.group), num(number(row.mean)), Dots(row.mean, row.ci95, low, high), interval_cell(row.ci95),
        num(row.n), num(_missing(row.missing, row.reasons)), num(number(low, 3)), num(number(high, 3)),
        num(_scaled(scaled)), num(number(row.sd, 3)),
    ]  # fmt: skip


def draw(groups: dict[str, list[list[object]]], header: list[object], zero: bool = False) -> None:
    """Draw the dots and whiskers, those of a group on one axis; drop columns in which no row has anything."""
    for rows in groups.values():
        dots = [cell for row in rows for cell in row if isinstance(cell, Dots)]
        axis = Axis([d.value for d in dots], [d.ends for d in dots], zero)
        for row in rows:
            row[:] = [
                tag("td", axis.plot(d.value, d.ends, d.floor, d.ceiling)) if isinstance(d, Dots) else d for d in row
            ]
    compact(header, [row for rows in groups.values() for row in rows])


def compact(header: list[object], rows: list[list[object]]) -> None:
    """Drop the columns, but the first, in which no row has anything."""
    empty = [i for i in range(1, len(header)) if all(row[i] in EMPTY for row in rows)]
    for line in [header, *rows]:
        for i in reversed(empty):
            del line[i]


def head(title: str, direction: str, definition: str) -> Html:
    """The line above the rows of a quantity."""
    small = tag("small", f" {direction} is better") if direction in ("higher", "lower") else None
    return tag("div", title, small, details("Definition", tag("p", definition)) if definition else None)


def interval_cell(ends: tuple[float, float] | None) -> Html:
    return tag("td", interval(ends), class_="i")


def comparisons(report: Report, names: Names) -> Html | None:
    """Paired differences, those of a quantity together."""
    if not report.comparisons:
        return None
    header: list[object] = ["a – b", num_head("difference"), "", "95 % interval", num_head("p (Holm)")]
    header += [*map(num_head, ("effect size", "n", "missing", "smallest detectable")), "verdict"]
    about: dict[str, str] = {}
    lines: dict[str, list[list[object]]] = {}
    for c in report.comparisons[:MOST_ROWS]:
        about.setdefault(c.quantity, c.definition)
        lines.setdefault(c.quantity, []).append(_comparison(c, names))
    draw(lines, header, zero=True)
    groups = [(head(says(q), "", about[q]), rows) for q, rows in lines.items()]
    count = len(report.comparisons)
    return join([grouped(None, header, groups, "rows"), rest(min(count, MOST_ROWS), count)])


def _comparison(c: Comparison, names: Names) -> list[object]:
    sides = join([names.group(c.a), tag("br"), tag("span", "– ", names.group(c.b), class_="minus")])
    verdict: object = ""
    if c.verdict:
        margin = f" (margin {number(c.margin, 3)})" if c.margin is not None else ""
        word = tag("b", c.verdict, class_="bad" if c.verdict == "moved" else None)
        verdict = tag("td", word, margin, tag("small", c.reason) if c.reason else None)
    return [
        tag("th", sides, scope="row"), num(number(c.difference)), Dots(c.difference, c.ci95), interval_cell(c.ci95),
        num(number(c.p_holm, 2)), num(number(c.effect_size, 3)), num(c.n), num(_missing(c.missing, c.reasons)),
        num(number(c.smallest_detectable, 3)), verdict,
    ]  # fmt: skip


FIRST = ("rank", "method", "knob", "parameter", "a", "b", "group", "quantity", "value", "effect", "difference", "share",
         "ci95", "verdict", "n")  # fmt: skip


def plain(found: list[dict[str, Any]], names: Names) -> Html:
    """Effects of any kind: a table for each, the fields that are known first."""
    out: list[Html] = []
    for kind in dict.fromkeys(str(e.get("kind", "")) for e in found):
        mine = [e for e in found if str(e.get("kind", "")) == kind]
        fields = list(dict.fromkeys(key for e in mine for key in e if key not in ("kind", "definition", "definitions")))
        fields.sort(key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))
        value = next((key for key in ("effect", "difference", "share") if key in fields), "")
        numeric = {key for key in fields if any(_real(e.get(key)) is not None for e in mine)}
        header: list[object] = [num_head(_title(key)) if key in numeric else _title(key) for key in fields]
        lines = [[_field(key, e.get(key), names) for key in fields] for e in mine[:MOST_ROWS]]
        if value:
            at = fields.index(value) + 1
            header.insert(at, "")
            for e, line in zip(mine, lines, strict=False):
                line.insert(at, Dots(_real(e.get(value)), _ends(e.get("ci95"))))
        draw({kind: lines}, header, zero=True)
        said = list(dict.fromkeys(str(e["definition"]) for e in mine if e.get("definition")))
        more: dict[str, Any] = next((e["definitions"] for e in mine if isinstance(e.get("definitions"), dict)), {})
        said += [f"{name}: {words}." for name, words in more.items()]
        title = head((kind or "effects").replace("_", " "), "", " ".join(said))
        out += [grouped(None, header, [(title, lines)], "rows"), rest(len(lines), len(mine))]
    return join(out)


def _field(key: str, value: Any, names: Names) -> object:
    """A cell of something that an effect says."""
    if key == "ci95":
        return tag("td", interval(_ends(value)), class_="i")
    if isinstance(value, bool) or value is None or isinstance(value, str):
        words = DASH if value is None else str(value)
        return tag("td", words, class_="t") if len(words) > 40 else words
    if isinstance(value, (int, float)):
        return num(number(value))
    if isinstance(value, dict):
        if all(v is None for v in value.values()):
            return DASH
        if key == "reasons":
            return "; ".join(f"{why} ({count})" for why, count in value.items())
        return names.group(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, dict) for v in value):
        fields = list(dict.fromkeys(inner for v in value for inner in v))
        rows = [[_field(inner, v.get(inner), names) for inner in fields] for v in value]
        return tag("td", details(f"{len(rows)}", table(None, [_title(inner) for inner in fields], rows)))
    if isinstance(value, (list, tuple)):
        return ", ".join(number(v) for v in value)
    return str(value)


def _title(key: str) -> str:
    return "95 % interval" if key == "ci95" else key.replace("_", " ")


def _real(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _ends(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, (list, tuple)) or len(value) != 2 or any(_real(v) is None for v in value):
        return None
    return float(value[0]), float(value[1])


def definitions(report: Report) -> dict[str, tuple[str, str]]:
    """(direction, definition) of every score and similarity, as of the first map; the class is each map's own."""
    out: dict[str, tuple[str, str]] = {}
    for record in report.records:
        for name, score in record.scores.items():
            out.setdefault(name, (score.direction, score.definition))
        for s in record.similarities:
            out.setdefault(s.name, (s.direction, s.definition))
    return {
        name: (d if d in ("higher", "lower") else "", re.sub(r"; class \d+", "", t)) for name, (d, t) in out.items()
    }


def _bounds(
    members: Members, row: Aggregate, floor: Aggregate | None, ceiling: Aggregate | None
) -> tuple[float | None, float | None]:
    """Floor and ceiling of a row: their own rows, else the means over the records that it is about."""
    if floor or ceiling or "to" in row.group:
        return (floor.mean if floor else None), (ceiling.mean if ceiling else None)
    mine = [r.scores[row.quantity] for r in members.of(row.group) if row.quantity in r.scores]
    return _mean(s.floor for s in mine), _mean(s.ceiling for s in mine)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _scaled(row: Aggregate | None) -> Html:
    if row is None or row.mean is None:
        return join([DASH])
    return join([number(row.mean, 3), tag("small", interval(row.ci95)) if row.ci95 else None])


def _missing(count: int, reasons: dict[str, int]) -> Html:
    return join([count, tag("small", "; ".join(reasons)) if reasons else None])


def num_head(name: str) -> Html:
    return tag("th", name, scope="col", class_="n")


def rest(shown: int, count: int) -> Html:
    return tag("p", f"{count - shown} more in report.json.", class_="note") if shown < count else Html("")
