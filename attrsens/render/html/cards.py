"""The images: input and maps of each, the curves and numbers of its maps, as one card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from attrsens.engine.agreement import Matrix
from attrsens.engine.report import Record, Report, SimilarityInfo
from attrsens.render.html.markup import Html, details, join, num, table, tag
from attrsens.render.html.names import DASH, Names, change, number, short, target
from attrsens.render.html.order import Order, orders
from attrsens.render.html.plots import curves, matrix
from attrsens.render.html.thumbs import Thumb, input_key

BAR = tag("span", class_="bar", aria_hidden="true")
MOST_MAPS = 24  # of a table of pairs
UNDER = 4  # numbers below a map
Later = Callable[[Callable[[], Html]], Html]
Find = Callable[[Record], Thumb | None]


@dataclass
class Gallery:
    """The cards of a report.

    Attributes:
        report: whose records are shown.
        find, find_input: their pictures, once the size of those is chosen.
        later: gives a mark for what can only be made then.
        room: bytes for the cards with their pictures; `reserve` is what a map's picture takes at the least, `detail`
            what all tables and curves may take.
    """

    report: Report
    names: Names
    find: Find
    find_input: Find
    later: Later
    room: int
    reserve: int
    detail: int

    def __post_init__(self) -> None:
        self.left_out = 0
        self.bare = 0
        self.shown: list[Record] = []
        self.orders: list[Order] = []

    def cards(self) -> list[Html]:
        """As many as there is room for; their pictures come later."""
        images: dict[str, list[Record]] = {}
        for record in self.report.records:
            images.setdefault(record.image.path, []).append(record)
        self.orders = orders(self.report.records)
        out: list[Html] = []
        for i, (path, records) in enumerate(images.items(), 1):
            more = self._details(records)
            if sum(map(len, more)) > self.detail:
                more, self.bare = (Html(""), Html("")), self.bare + 1
            card = self._card(i, path, records, *more)
            size = len(card.encode()) + self.reserve * len(records)
            if size > self.room:
                self.left_out = len(images) - i + 1
                break
            self.room -= size
            self.detail -= sum(map(len, more))
            self.shown += records
            out.append(card)
        return out

    def _card(self, i: int, path: str, records: list[Record], plots: Html, more: Html) -> Html:
        first = records[0]
        name = path.rsplit("/", 1)[-1] or path
        about = [f"{first.image.size[1]} x {first.image.size[0]} px", *first.image.notes]
        keys = {f"data_{order.slug}": f"{order.values[path]:.6g}" for order in self.orders if path in order.values}
        parts: list[Html] = []
        for index in dict.fromkeys(r.target.index for r in records):
            mine = [r for r in records if r.target.index == index]
            parts.append(_target(mine[0]))
            parts += self._places(mine, records, plain=not any(change(r) for r in records))
        heading = tag("h3", name.removeprefix("sample:"), " ", tag("small", "; ".join(about)))
        title = None if path in (name, name.removeprefix("sample:")) else tag("p", path, class_="path")
        attributes: dict[str, object] = {"class_": "card", "id": f"image-{i}", "data_name": name, "data_given": i}
        rows = len({(record.target.index, input_key(record)) for record in records})
        beside = 0 < plots.count("<svg") <= rows and len(records) <= 2 * rows  # there is room for both
        body = tag("div", tag("div", parts), plots, class_="beside" if beside else None)
        return tag("article", heading, title, body, more, **(attributes | keys))

    def _places(self, mine: list[Record], records: list[Record], plain: bool) -> list[Html]:
        """A row for every model and input of a class."""
        places: dict[tuple[str, ...], list[Record]] = {}
        for record in mine:
            places.setdefault(input_key(record), []).append(record)
        named = self.names.several or not plain
        rows = []
        numbered = _paired(records)
        for found in places.values():
            first = found[0]
            where = tag("p", _where(first, self.names.several, plain), class_="where") if named else None
            figures = [self.later(partial(self._input, first))]
            figures += [self._map(r, records.index(r) + 1 if numbered else None) for r in found]
            rows.append(tag("div", where, tag("div", figures, class_="maps"), class_="place"))
        return [tag("div", rows, class_="places")]

    def _input(self, record: Record) -> Html:
        thumb = self.find_input(record)
        if thumb is None:
            return Html("")
        words = ", ".join(["what the model saw", *change(record)])
        picture = _img(thumb, f"Input of {record.image.path}, {words}")
        return tag("figure", tag("div", picture, class_="frame"), tag("figcaption", words), class_="input")

    def _map(self, record: Record, place: int | None) -> Html:
        name = short(record.method.expression)
        caption: list[object] = [tag("b", place), " "] if place else []
        caption.append(tag("span", name, class_="method"))
        numbers = [tag("span", words) for words in _under(record)]
        below = tag("div", numbers, class_="under") if numbers else None
        return tag(
            "figure", self.later(partial(self._picture, record)), tag("figcaption", caption, below), class_="map"
        )

    def _picture(self, record: Record) -> Html:
        """The map and its colour bar."""
        thumb = self.find(record)
        if thumb is None:
            return tag("p", "no picture", class_="note")
        alt = f"Map {short(record.method.expression)} of {record.image.path} for {target(record)}, probability "
        alt += ", ".join([f"{record.target.probability:.3f}", record.model.name, *change(record)])
        limit = thumb.limit or 0.0
        scale = tag("div", tag("span", number(-limit, 2)), BAR, tag("span", number(limit, 2)), class_="scale")
        return join([tag("div", _img(thumb, alt), class_="frame", data_limit=f"{limit:.6g}"), scale])

    def _details(self, records: list[Record]) -> tuple[Html, Html]:
        """Curves; a table of scores and one of pairs for each similarity."""
        labels = [self.names.record(r) for r in records]
        parts: list[Html] = []
        names = list(dict.fromkeys(name for r in records for name in r.scores))
        for name in names:
            lines = [(label, r.scores[name].curve or []) for r, label in zip(records, labels, strict=True)
                     if name in r.scores and r.scores[name].curve]  # fmt: skip
            if lines:
                parts.append(curves(name, lines, legend=len(records) > 1))
        shown = tag("div", parts, class_="plots") if parts else None
        tables = [_scores(records, labels, names)] if names else []
        if len(records) <= MOST_MAPS:
            tables += [matrix(name, labels, found) for name, found in _matrices(records).items()]
        tables += [found] if (found := _similarities(records, labels)) else []
        return join([shown]), join([details("Numbers of this image", tables) if tables else None])


def _target(record: Record) -> Html:
    t = record.target
    words: list[object] = [tag("b", target(record)), f" p = {t.probability:.3f}, rank {t.rank}"]
    if t.true is not None:
        words.append(", its true class" if t.true == t.index else f", true class {t.true}")
    return tag("p", words, class_="target")


def _where(record: Record, several: bool, plain: bool) -> Html:
    said = record.input.prediction
    words: list[object] = [record.model.name] if several else []
    words += change(record) or ([] if plain else ["the input as it is"])
    line = ", ".join(map(str, words))
    if said is None:
        return join([line])
    flipped = tag("strong", f", top class now {said.label or said.top}", class_="bad") if said.flipped else None
    return join([line, f": p = {said.probability:.3f}, rank {said.rank}", flipped])


def _under(record: Record) -> list[str]:
    """The numbers that stand below a map: similarity to the reference, else scores."""
    to = [f"{s.name} {number(s.value, 3)}" for s in record.similarities if s.role == "reference"]
    scores = [f"{name.partition(':')[0]} {number(s.value, 3)}" for name, s in record.scores.items()]
    return (to + scores)[:UNDER]


def _img(thumb: Thumb, alt: str) -> Html:
    return tag("img", src=Html(thumb.uri), alt=alt, width=thumb.shape[1], height=thumb.shape[0])


def _paired(records: list[Record]) -> bool:
    return len(records) > 2 and any(s.role == "pair" for r in records for s in r.similarities)


def _scores(records: list[Record], labels: list[str], names: list[str]) -> Html:
    rows: list[list[object]] = []
    for name in names:
        cells: list[object] = [name]
        for record in records:
            score = record.scores.get(name)
            cells.append(num(_judged(score.value, score.floor, score.ceiling, score.rescaled, score.reason))
                         if score else num(DASH))  # fmt: skip
        rows.append(cells)
    return table("Scores", ["score", *(tag("th", name, scope="col", class_="n") for name in labels)], rows, "scores")


def _judged(
    value: float | None, floor: float | None, ceiling: float | None, rescaled: float | None, reason: str | None
) -> Html:
    """A number, and below it what it is to be held against, or why there is none."""
    given = (("floor", floor), ("ceiling", ceiling), ("rescaled", rescaled))
    small = [f"{name} {number(v, 3)}" for name, v in given if v is not None]
    small += [reason or "no value"] if value is None else []
    return join([number(value), tag("small", ", ".join(small)) if small else None])


def _matrices(records: list[Record]) -> dict[str, Matrix]:
    """A table of pairs for each similarity, where there are more than two maps."""
    place = {r.key: i for i, r in enumerate(records)}
    out: dict[str, Matrix] = {}
    for i, record in enumerate(records if _paired(records) else []):
        for s in record.similarities:
            if s.role == "pair" and s.to in place:
                found = out.setdefault(s.name, Matrix(s.name, [], 1, {}, {}, {}, {}))
                pair = min(i, place[s.to]), max(i, place[s.to])
                found.mean[pair], found.rescaled[pair] = s.value, s.rescaled
    return out


def _similarities(records: list[Record], labels: list[str]) -> Html | None:
    """The similarities that no table of pairs shows."""
    known = dict(zip((r.key for r in records), labels, strict=True))
    rows: list[list[object]] = []
    for record, label in zip(records, labels, strict=True):
        if _paired(records):
            continue
        by_other: dict[tuple[str, str], dict[str, SimilarityInfo]] = {}
        for s in record.similarities:
            by_other.setdefault((s.to, s.role), {})[s.name] = s
        for (to, role), found in by_other.items():
            for s in found.values():
                whose = num(_judged(s.value, s.floor, s.ceiling, s.rescaled, s.reason))
                rows.append([label, known.get(to, to[:8]), role, s.name, whose])
    return table("Similarities", ["map", "to", "as its", "similarity", "value"], rows) if rows else None
