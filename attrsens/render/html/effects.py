"""What a sweep found of its knobs: one table a method for the maps, one a score, and what else there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrsens.engine.report import Report
from attrsens.render.html import tables
from attrsens.render.html.markup import Html, details, grouped, join, num, tag
from attrsens.render.html.names import DASH, Names, number
from attrsens.render.html.tables import Dots, head, num_head

Effect = dict[str, Any]
STANDARD = ("knob", "effect", "95 % interval", "n")


def effects(report: Report, names: Names) -> Html | None:
    """Which knob matters, for each method and model; the kinds that are not known here as plain tables."""
    import msgspec

    found: list[Effect] = [msgspec.to_builtins(effect) for effect in report.effects]
    if not found:
        return None
    kinds: dict[tuple[str, ...], Callable[[list[Effect], Names], list[Html]]] = {
        ("method_rank", "method_verdict"): _methods,
        ("knob_effect", "seed_effect", "knob_verdict"): _knobs,
        ("share",): _shares,
        ("score_effect",): _scores,
        ("stability",): _stability,
        ("rank_stability", "specification_curve"): _conventions,
    }
    out: list[Html] = []
    known = {kind for group in kinds for kind in group}
    for group, make in kinds.items():
        mine = [e for e in found if e["kind"] in group]
        if mine:
            out += make(mine, names)
    rest = [e for e in found if e["kind"] not in known]
    return join([*out, tables.plain(rest, names)] if rest else out)


def _methods(found: list[Effect], names: Names) -> list[Html]:
    ranks = [e for e in found if e["kind"] == "method_rank"]
    rows = [
        [
            e["method"],
            num(e["rank"] or DASH),
            e["knob"] or DASH,
            *_measured(e, "effect"),
            num(e["n"]),
            e["reason"] or "",
        ]
        for e in ranks
    ]
    header = ["method", num_head("rank"), "its most effective knob", num_head("effect"), "", "95 % interval"]
    return [_table("Methods by their largest effect", rows, [*header, num_head("n"), "note"], ranks), _sayings(found)]


def _knobs(found: list[Effect], names: Names) -> list[Html]:
    out = []
    for group, mine in _by_group(found).items():
        knobs = [e for e in mine if e["kind"] == "knob_effect"]
        knobs.sort(key=lambda e: (e["effect"] is None, -(e["effect"] or 0)))
        seeds = [e for e in mine if e["kind"] == "seed_effect"]
        rows = [[e["knob"], _start(e), *_measured(e, "effect"), _reach(e), num(e["n"]), _why(e)] for e in knobs]
        rows += [["the seed", DASH, *_measured(e, "effect"), DASH, num(e["n"]), _why(e)] for e in seeds]
        header: list[object] = ["knob", "from", num_head("effect"), "", "95 % interval", "reaches 0.1", num_head("n")]
        title = f"Which knob of {group} moves its maps: 0 nothing, 1 another map"
        out += [_table(title, rows, [*header, "note"], [*knobs, *seeds]), _sayings(mine), _profiles(knobs)]
    return out


def _profiles(knobs: list[Effect]) -> Html:
    """Every setting, with what is draw noise and what the knob."""
    header: list[object] = [
        "setting",
        *map(num_head, ("1 - c*", "c*", "c", "g", "r", "r / r(t0)")),
        "95 % interval",
        "note",
    ]
    groups = []
    for e in knobs:
        rows = [
            [
                f"{e['knob']}={number(p['value'])}",
                *(num(number(p[k])) for k in ("effect", "c_star", "c", "g", "r", "r_ratio")),
                _ends(p["ci95"]),
                p["reason"] or "",
            ]
            for p in e["points"]
        ]
        if rows:
            groups.append((tag("div", e["knob"]), rows))
    if not groups:
        return Html("")
    said = "1 - c = (1 - g) from draws + g (1 - c*) from the knob; r is the cosine of two draws of the setting."
    return details("Every setting", tag("p", said, class_="note"), grouped(None, header, groups, "rows"))


def _shares(found: list[Effect], names: Names) -> list[Html]:
    out = []
    for group, mine in _by_group(found).items():
        rows = [
            [
                e["knob"],
                ", ".join(map(number, e["range"])) or DASH,
                *_measured(e, "share"),
                _halved(e),
                num(e["n"]),
                _why(e),
            ]
            for e in mine
        ]
        header = [
            "knob",
            "range in use",
            num_head("share"),
            "",
            "95 % interval",
            "if a range is halved",
            num_head("n"),
            "note",
        ]
        out.append(_table(f"Shares of the variance of {group}'s maps", rows, header, mine))
    return out


def _scores(found: list[Effect], names: Names) -> list[Html]:
    header: list[object] = [
        "setting",
        num_head("shift"),
        "",
        "95 % interval",
        num_head("within an image"),
        "95 % interval",
    ]
    groups: dict[str, list[list[object]]] = {}
    for e in found:
        name = f"{e['quantity']}, {names.group(e['group'])}"
        row = [f"{e['knob']}={number(e['value'])}", num(number(e["shift"])), Dots(e["shift"], _pair(e["shift_ci95"]))]
        row += [_ends(e["shift_ci95"]), num(number(e["within"])), _ends(e["within_ci95"]), num(e["n"]), _why(e)]
        groups.setdefault(name, []).append(row)
    header += [num_head("n"), "note"]
    tables.draw(groups, header, zero=True)
    title = tag("h3", "What the settings do to scores, against the reference")
    parts = [(tag("div", name), rows) for name, rows in groups.items()]
    return [title, _definition(found), grouped(None, header, parts, "rows")]


def _stability(found: list[Effect], names: Names) -> list[Html]:
    """SAM's aggregations, a row for each model."""
    keys = ("mean", "mean_std", "rms_std", "marginal", "hidden", "n")
    heads = ("mean", "mean of sds", "root mean square of sds", "sd of means", "hidden", "n")
    rows = []
    for e in found:
        for model in e["mean"]:
            name = f"{e['quantity']} over {e['knob']}, {model}, {e['group'].get('method', '')}"
            rows.append([name, *(num(number(e[key].get(model))) for key in keys)])
    header: list[object] = ["score", *map(num_head, heads)]
    title = tag("h3", "How far scores vary over a knob's values")
    words = [f"{name.replace('_', ' ')}: {text}" for name, text in found[0]["definitions"].items()]
    said = [tag("p", line) for line in [*words, found[0]["note"]]]
    return [title, details("Definitions", said), grouped(None, header, [(None, rows)], "rows")]


def _conventions(found: list[Effect], names: Names) -> list[Html]:
    out: list[Html] = [tag("h3", "Does the order of methods survive the metric's own knob")]
    for group, mine in _by_group(found, "knob").items():
        taus = [e for e in mine if e["kind"] == "rank_stability"]
        rows = [
            [f"{e['a']} ~ {e['b']}", *(num(number(e[k])) for k in ("of_means", "of_mean_ranks", "per_image")),
             _ends(e["ci95"]), num(e["n"]), _why(e)]
            for e in taus
        ]  # fmt: skip
        heads = map(num_head, ("tau of means", "of mean ranks", "within images"))
        header: list[object] = ["conventions", *heads, "95 % interval", num_head("n"), "note"]
        if rows:
            out += [_definition(taus), grouped(None, header, [(tag("div", group), rows)], "rows")]
        for e in mine:
            if e["kind"] == "specification_curve":
                lines: list[list[object]] = [
                    [
                        c["name"],
                        num(number(c["better_by"])),
                        Dots(c["better_by"], _pair(c["ci95"])),
                        _ends(c["ci95"]),
                        num(c["n"]),
                    ]
                    for c in e["conventions"]
                ]
                head_: list[object] = ["convention", num_head("better by"), "", "95 % interval", num_head("n")]
                tables.draw({e["text"]: lines}, head_, zero=True)
                out.append(grouped(None, head_, [(head(e["text"], "", e["definition"]), lines)], "rows"))
    return out


# -- parts ---------------------------------------------------------------------------------------------------------


def _table(title: str, rows: list[list[object]], header: Sequence[object], of: list[Effect]) -> Html:
    header = list(header)
    tables.draw({title: rows}, header, zero=True)
    said = " ".join(dict.fromkeys(str(e["definition"]) for e in of if e.get("definition")))
    return join([tag("h3", title), _details(said), grouped(None, header, [(None, rows)], "rows")])


def _sayings(found: list[Effect]) -> Html:
    """The verdicts: those that say something, else that none does."""
    verdicts = [e for e in found if e["kind"].endswith("_verdict")]
    if not verdicts:
        return Html("")
    sure = [
        f"{e['verdict']} (difference {number(e['difference'], 3)}, p {number(e['p_holm'], 2)})"
        for e in verdicts
        if e["more"]
    ]
    lines = [tag("li", line) for line in sure]
    if not sure:
        return tag("p", "No two of them are separable on these images.", class_="note")
    return join([tag("ul", lines), _details(str(verdicts[0]["definition"]))])


def _by_group(found: list[Effect], *more: str) -> dict[str, list[Effect]]:
    """By method and model."""
    out: dict[str, list[Effect]] = {}
    for e in found:
        g = e["group"]
        words = [str(g[k]) for k in ("method", "model", *more) if g.get(k)]
        out.setdefault(", ".join(words), []).append(e)
    return out


def _measured(e: Effect, key: str) -> list[object]:
    return [num(number(e[key])), Dots(e[key], _pair(e["ci95"])), _ends(e["ci95"])]


def _start(e: Effect) -> str:
    return number(e["reference"]) or DASH


def _reach(e: Effect) -> str:
    tolerance = e["tolerance"]
    if not tolerance:
        return DASH
    unit = "octaves" if e["scale"] == "ratio" else "steps"
    return f"{'beyond' if tolerance['at'] is None else 'at'} {tolerance['text'].lstrip('> ')} {unit}"


def _halved(e: Effect) -> str:
    return ", ".join(f"{knob}: {number(value, 3)}" for knob, value in e["halved"].items()) or DASH


def _why(e: Effect) -> Html:
    sides = [
        f"{way} {number(e[way], 3)}" for way in ("down", "up") if e.get("effect") is None and e.get(way) is not None
    ]
    words = "; ".join([*sides, e.get("reason") or "", *(f"{why} ({n})" for why, n in e.get("reasons", {}).items())])
    return tag("td", words.strip("; "), class_="t")


def _pair(ends: Any) -> tuple[float, float] | None:
    return (float(ends[0]), float(ends[1])) if ends else None


def _ends(ends: Any) -> Html:
    return tables.interval_cell(_pair(ends))


def _definition(found: list[Effect]) -> Html:
    return _details(" ".join(dict.fromkeys(str(e["definition"]) for e in found if e.get("definition"))))


def _details(words: str) -> Html:
    return details("Definition", tag("p", words)) if words else Html("")
