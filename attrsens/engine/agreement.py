"""From the records of a comparison to rows over images: who agrees with whom, and which differences are sure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from attrsens.engine.metrics import Judging, short
from attrsens.engine.report import Aggregate, Comparison, Record, Report
from attrsens.engine.stats import Sample, comparisons, summary
from attrsens.spec import METHODS, WRAPPERS, Registry, Value, split_expression, write_expression

Place = tuple[str, float, str | None, str]  # model id, noise, erased, method expression
AGREEMENT, RESCALED, FLOOR, CEILING = "agreement (", " (rescaled)", " (floor)", " (ceiling)"
FLIP, CHANGE = "label_flip", "probability_change"
ABSENT = "there is no map"
PARTIAL = "it cannot be compared with all of the other methods"


@dataclass
class Row:
    """A quantity of one place, or of a pair of them: every value of every image, and why there is none."""

    quantity: str
    at: tuple[Place, ...]
    values: dict[str, list[float]] = field(default_factory=dict)
    reasons: dict[str, list[str]] = field(default_factory=dict)

    def add(self, image: str, value: float | None, reason: str | None = None) -> None:
        if value is None:
            self.reasons.setdefault(image, []).append(reason or "no value")
        else:
            self.values.setdefault(image, []).append(value)

    def means(self) -> dict[str, float]:
        """By image, targets averaged."""
        return {image: sum(values) / len(values) for image, values in self.values.items()}


class Tables:
    """The numbers of a comparison.

    Args:
        records: of all images.
        first: the method that was named first; without it, that of the first record.
    """

    def __init__(self, records: Sequence[Record], first: str | None = None) -> None:
        self.first = first or (records[0].method.expression if records else "")
        self.images = list(dict.fromkeys(record.image.sha256 for record in records))
        self.records: dict[Place, Record] = {}
        for record in records:
            self.records.setdefault(place_of(record), record)
        self.order = {place: i for i, place in enumerate(self.records)}
        ids: dict[str, set[str]] = {}
        for record in records:
            ids.setdefault(record.model.name, set()).add(record.model.id)
        self.twice = {name for name, found in ids.items() if len(found) > 1}
        self.rows: dict[tuple[str, tuple[Place, ...]], Row] = {}
        self._fill(records)

    def _fill(self, records: Sequence[Record]) -> None:
        by_key = {(record.image.sha256, record.key): place_of(record) for record in records}
        seen = set()
        for record in records:
            image, here = record.image.sha256, place_of(record)
            for name, score in record.scores.items():
                self.row(name, here).add(image, score.value, score.reason)
                if score.rescaled is not None:
                    self.row(name + RESCALED, here).add(image, score.rescaled)
            for s in record.similarities:
                pair = sorted((here, by_key[image, s.to]), key=self.order.__getitem__)
                self.row(s.name, *pair).add(image, s.value, s.reason)
                for suffix, value in ((RESCALED, s.rescaled), (FLOOR, s.floor), (CEILING, s.ceiling)):
                    self.row(s.name + suffix, *pair).add(image, value, s.reason or "there is no control")
            said, view = record.input.prediction, (*here[:3], "")
            if said and (image, view, record.target.index) not in seen:
                seen.add((image, view, record.target.index))
                self.row(FLIP, view).add(image, float(said.flipped))
                self.row(CHANGE, view).add(image, said.probability - record.target.probability)

    def row(self, quantity: str, *at: Place) -> Row:
        return self.rows.setdefault((quantity, at), Row(quantity, at))

    # -- over images -------------------------------------------------------------------------------------------

    def aggregates(self) -> list[Aggregate]:
        """A row for every score of a place, every similarity of a pair of places (raw, rescaled, floor and ceiling),
        how far a method agrees with the others, and what a change of the input does to the prediction."""
        return [
            self._summary(self.sample(row))
            for row in [*self.rows.values(), *self.agreement()]
            if row.values or _own(row)
        ]

    def agreement(self) -> Iterator[Row]:
        """For every place the mean, over the other methods of its model and input, of the rescaled similarity. Only
        images that have it with all methods that any image has it with: every image means the same methods."""
        names = dict.fromkeys(row.quantity for row in self.rows.values() if len(row.at) == 2)
        for name in [n for n in names if n.endswith(RESCALED)]:
            found: dict[Place, list[dict[str, float]]] = {}
            for row in self.rows.values():
                if row.quantity == name and row.values and row.at[0][:3] == row.at[1][:3]:
                    for place in row.at:
                        found.setdefault(place, []).append(row.means())
            for place in sorted(found, key=self.order.__getitem__):
                row = Row(f"{AGREEMENT}{name.removesuffix(RESCALED)})", (place,))
                for image in self.images:
                    values = [others[image] for others in found[place] if image in others]
                    whole = len(values) == len(found[place])
                    row.add(image, sum(values) / len(values) if whole else None, PARTIAL)
                yield row

    def sample(self, row: Row) -> Sample:
        """The row by image, over all images of the comparison."""
        means = row.means()
        why = {image: row.reasons.get(image, [ABSENT])[0] for image in self.images if image not in means}
        lost = [*(reason for reasons in row.reasons.values() for reason in reasons)]
        lost += [ABSENT for image in why if image not in row.reasons]
        return Sample(row.quantity, self.group(*row.at), {i: means.get(i) for i in self.images}, why, lost)

    def _summary(self, sample: Sample) -> Aggregate:
        known = [value for value in sample.values.values() if value is not None]
        missing = len(sample.values) - len(known)
        if not sample.quantity.endswith((FLOOR, CEILING)):
            return summary(sample.quantity, sample.group, known, missing, sample.lost)
        mean = sum(known) / len(known) if known else None
        counts = {reason: sample.lost.count(reason) for reason in dict.fromkeys(sample.lost)}
        return Aggregate(sample.quantity, sample.group, mean, None, None, len(known), missing, counts)

    # -- differences -------------------------------------------------------------------------------------------

    def comparisons(self) -> list[Comparison]:
        """Paired differences over images, Holm over the rows of each quantity: of scores, between places that differ in
        their method, their model or their input (changed against not) alone; of similarities within a model, between
        models, and of clean against changed input also between methods; of one model's methods to the first method of
        another model; of predictions between models."""
        by_quantity: dict[str, list[Row]] = {}
        for row in [*self.rows.values(), *self.agreement()]:
            if not row.quantity.endswith((FLOOR, CEILING)):
                by_quantity.setdefault(row.quantity, []).append(row)
        out = []
        for quantity, rows in by_quantity.items():
            numbers = [self.sample(row) for row in rows]
            pairs = [
                (i, j) for i, j in combinations(range(len(rows)), 2) if _comparable(rows[i].at, rows[j].at, self.first)
            ]
            if quantity.startswith(AGREEMENT):  # that of two methods is one number, equal to itself
                sizes = Counter(row.at[0][:3] for row in rows)
                views = [row.at[0][:3] for row in rows]
                pairs = [(i, j) for i, j in pairs if views[i] != views[j] or sizes[views[i]] > 2]
            out += comparisons((numbers[i], numbers[j]) for i, j in pairs)
        return out

    def group(self, *at: Place) -> dict[str, Any]:
        """What a row is about; of a pair, the second place is `to`."""
        model_id, noise, erased, expression = at[0]
        out: dict[str, Any] = {"model": self._model(model_id), "noise": noise, "erased": erased}
        if expression:
            record = self.records[at[0]]
            parameters = {**record.method.parameters}
            out |= {"method": record.method.title, "parameters": parameters, "expression": expression}
        if len(at) > 1:
            out["to"] = self.group(at[1])
        return out

    def _model(self, model_id: str) -> str:
        name = next(place for place in self.records if place[0] == model_id)
        found = self.records[name].model.name
        return model_id if found in self.twice else found


def of_pairs(judging: Judging) -> list[str]:
    """The quantities of a comparison's rows besides those that scores and similarities always have."""
    names = [short(call) for call in judging.similarities]
    return [name + suffix for name in names for suffix in (RESCALED, FLOOR, CEILING)] + [
        *(f"agreement ({name})" for name in names),
        FLIP,
        CHANGE,
    ]


def place_of(record: Record) -> Place:
    """What distinguishes a record from the others of its image and target."""
    erased = record.input.erased and f"{record.input.erased} ({record.input.fill})"
    return record.model.id, record.input.noise, erased, record.method.expression


def _comparable(a: tuple[Place, ...], b: tuple[Place, ...], first: str) -> bool:
    """Whether two rows of a quantity differ in one thing only, so that their difference means something.

    Args:
        first: the method that was named first.
    """
    if len(a) == 2:
        if a[0][0] != a[1][0] or b[0][0] != b[1][0]:
            return _cross(a, b, first)
        if {p[1:] for p in a} == {p[1:] for p in b}:  # in any order: a map may lack on the first image
            return a[0][0] != b[0][0]  # the same pair in two models
        through = all(pair[0][3] == pair[1][3] for pair in (a, b))  # one method, clean against changed
        inputs = {p[1:3] for p in a}
        return through and (0.0, None) in inputs and a[0][0] == b[0][0] and inputs == {p[1:3] for p in b}
    (one,), (other,) = a, b
    model, change, method = one[0] != other[0], one[1:3] != other[1:3], one[3] != other[3]
    if model + change + method != 1:
        return False
    return not change or (bool(one[3]) and (0.0, None) in (one[1:3], other[1:3]))


def _cross(a: tuple[Place, ...], b: tuple[Place, ...], first: str) -> bool:
    """Whether two pairs share a map of the first method in one model, and hold maps of another that differ in their
    method: which of them comes closer."""
    shared = [place for place in a if place in b]
    if len(shared) != 1 or shared[0][3] != first or any(place[1:3] != (0.0, None) for place in (*a, *b)):
        return False
    (one,), (other,) = ([place for place in pair if place != shared[0]] for pair in (a, b))
    return one[0] == other[0] != shared[0][0]


def _own(row: Row) -> bool:
    """Whether a row is worth its place even without a single value."""
    return not row.quantity.endswith((RESCALED, FLOOR, CEILING))


# -- what is printed and drawn ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matrix:
    """Mean similarities of all pairs.

    Attributes:
        groups: of the n places. images: the most that a pair has.
        mean, rescaled, floor, ceiling: (i, j) with i < j to the number, None where there is none.
    """

    quantity: str
    groups: list[dict[str, Any]]
    images: int
    mean: dict[tuple[int, int], float | None]
    rescaled: dict[tuple[int, int], float | None]
    floor: dict[tuple[int, int], float | None]
    ceiling: dict[tuple[int, int], float | None]


def matrices(report: Report) -> list[Matrix]:
    """One for each similarity, from the report's aggregates."""
    pairs = [row for row in report.aggregates if "to" in row.group]
    groups: dict[str, dict[str, Any]] = {}
    for row in pairs:
        for group in ({k: v for k, v in row.group.items() if k != "to"}, row.group["to"]):
            groups.setdefault(repr(group), group)
    place = {name: i for i, name in enumerate(groups)}
    out = []
    for quantity in dict.fromkeys(r.quantity for r in pairs if not r.quantity.endswith((RESCALED, FLOOR, CEILING))):
        means: dict[str, dict[tuple[int, int], float | None]] = {s: {} for s in ("", RESCALED, FLOOR, CEILING)}
        most = 0
        for row in pairs:
            suffix = row.quantity.removeprefix(quantity)
            if row.quantity.startswith(quantity) and suffix in means:
                own = {k: v for k, v in row.group.items() if k != "to"}
                i, j = sorted((place[repr(own)], place[repr(row.group["to"])]))
                means[suffix][i, j] = row.mean
                most = max(most, row.n)
        out.append(Matrix(quantity, list(groups.values()), most, *means.values()))
    return out


def labels(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Short names that tell groups apart: of the model where there are several, the method with what is not at its
    default, the change of the input."""
    several = len({g["model"] for g in groups}) > 1
    out = []
    for g in groups:
        words = [g["model"]] if several or "expression" not in g else []
        words += [brief(g["expression"])] if "expression" in g else []
        words += [f"noise {g['noise']:g}"] if g["noise"] else []
        words += [f"without {g['erased']}"] if g["erased"] else []
        out.append(" ".join(words))
    return out


def brief(expression: str) -> str:
    """A method expression without the parameters that are at their defaults."""
    head, *rest = split_expression(expression)
    return "+".join([_brief(head, METHODS), *(_brief(part, WRAPPERS) for part in rest)])


def _brief(text: str, registry: Registry) -> str:
    name, _, rest = text.partition(":")
    if name not in registry:
        return text
    defaults = {h.name: _text(h.default) for h in registry[name].hypers}
    given: dict[str, Value] = {}
    for part in rest.split(",") if rest else []:
        key, _, value = part.partition("=")
        if defaults.get(key) != value:
            given[key] = value
    return write_expression(name, given)


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
