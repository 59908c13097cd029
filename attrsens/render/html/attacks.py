"""The part of the page about attacks: what was shown of every map, under which budget, and what is to be doubted."""

from __future__ import annotations

from attrsens.engine.report import Record, Report
from attrsens.render.html.markup import Html, details, join, num, table, tag
from attrsens.render.html.names import DASH, Names, attacked, number, short

MOST = 200  # attacks that are listed
CLOSE = 12  # fewer stand open

COLUMNS = {
    "original_distance": "from the clean map",
    "target_distance": "from the target",
    "top_share": "on its top",
    "centre_distance": "centre, px",
    "prediction_kept": "class kept",
    "linf": "Linf",
    "l2": "L2",
}


def attacks(report: Report, names: Names) -> Html | None:
    """A table of attacks on maps, one of boundary searches, and every claim with its warnings."""
    told = [record for record in report.records if record.attack]
    if not told:
        return None
    maps = [record for record in told if attacked(record)]
    once = {(r.image.path, r.model.id, r.attack.expression): r for r in told if r.attack and not attacked(r)}
    parts = [_maps(maps[:MOST], names), _searches(list(once.values())[:MOST], names)]
    claims = [_claim(record, names) for record in (maps or list(once.values()))[:MOST]]
    left = len(maps) - MOST
    more = tag("p", f"{left} more in report.json.", class_="note") if left > 0 else None
    listed = tag("ul", claims)
    return join([*parts, more, details(f"What {len(claims)} attacks have shown", listed, open_=len(claims) <= CLOSE)])


def _maps(records: list[Record], names: Names) -> Html | None:
    if not records:
        return None
    rows: list[list[object]] = []
    columns = {name: head for name, head in COLUMNS.items() if any(name in record.scores for record in records)}
    for record in records:
        attack = record.attack
        assert attack
        cells: list[object] = [_name(record), names_of(record, names), attack.title]
        for name in columns:
            score = record.scores.get(name)
            cells.append(num(DASH if score is None else _with_noise(record, name)))
        rows.append([*cells, "; ".join(attack.warnings)])
    head: list[object] = ["image", "map", "attack", *(tag("th", c, scope="col", class_="n") for c in columns.values())]
    note = "Cosine distances of the maps' magnitudes, summed over channels; in brackets what noise of the same L2 norm "
    note += "does; before an arrow, of the clean map. Measured on the 8-bit image."
    return join([tag("p", note, class_="note"), table(None, [*head, "doubts"], rows, "words")])


def _with_noise(record: Record, name: str) -> str:
    score = record.scores[name]
    if name == "prediction_kept":
        return "yes" if score.value else "NO"
    text = number(score.value, 3)
    if (before := record.scores.get(f"{name}_before")) is not None:
        text = f"{number(before.value, 3)} → {text}"
    return f"{text} ({number(score.floor, 3)})" if score.floor is not None else text


def _searches(records: list[Record], names: Names) -> Html | None:
    """A column a stage, as in the paper's table."""
    if not records:
        return None
    first = records[0].attack
    assert first
    stages = [stage.name for stage in first.stages]
    rows: list[list[object]] = []
    for record in records:
        attack = record.attack
        assert attack
        found = {stage.name: stage.distance for stage in attack.stages}
        rows.append([_name(record), record.model.name, *(num(number(found.get(name))) for name in stages)])
    head: list[object] = ["image", "model", *(tag("th", name, scope="col", class_="n") for name in stages)]
    note = "Pixel L2 distance to the nearest image of another class that each stage of the search has found."
    return join([tag("p", note, class_="note"), table(None, head, rows, "words")])


def _claim(record: Record, names: Names) -> Html:
    attack = record.attack
    assert attack
    doubts = [tag("li", tag("strong", warning, class_="bad")) for warning in attack.warnings]
    files = [tag("code", path) for kind, path in record.artifacts.items() if kind in ("strip", "attacked")]
    words = [tag("b", _name(record)), f", {names_of(record, names)}, {attack.title}: {attack.claim}"]
    target = [f"; target: {attack.target}"] if attack.target else []
    return tag("li", words, target, [" "], join(files, " "), tag("ul", doubts) if doubts else None)


def _name(record: Record) -> str:
    return record.image.path.rsplit("/", 1)[-1].removeprefix("sample:")


def names_of(record: Record, names: Names) -> str:
    """The map that is attacked."""
    return ", ".join([*([record.model.name] if names.several else []), short(record.method.expression)])
