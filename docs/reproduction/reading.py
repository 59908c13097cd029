"""Numbers of a report by image: what every claim is computed from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# net -> image (sha256 of its pixels) -> number
Numbers = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Row:
    """One quantity at one place: a model, method, setting, target, and for similarities whose map it is held to."""

    quantity: str
    place: dict[str, Any]
    values: dict[str, float | None]


class Table:
    """Every number of one report."""

    def __init__(self, rows: Sequence[Row], report: Mapping[str, Any]) -> None:
        self.rows, self.report = list(rows), report

    @classmethod
    def read(cls, path: Path) -> Table:
        """From a report.json of attrsens."""
        report = json.loads(path.read_bytes())
        records = {record["key"]: record for record in report["records"]}
        if len(report["config"]["target"]) == 1:  # then its rank is the image's, and tells no rows apart
            for record in records.values():
                record["target"]["of"] = None
        rows: dict[str, Row] = {}
        for record in records.values():
            for quantity, place, value in _numbers(record, records):
                key = json.dumps([quantity, place], sort_keys=True)
                row = rows.setdefault(key, Row(quantity, place, {}))
                row.values[record["image"]["sha256"]] = value
        return cls(list(rows.values()), report)

    def __call__(self, quantity: str, nets: Sequence[str], **where: Any) -> Numbers:
        """The numbers of `quantity` on each of the nets.

        Args:
            quantity: the name as in the report, with as many of its parameters as tell it from others.
            where: `method` (a title such as grad+smooth), `noise`, `target` (rank, where several were asked for),
                `to_model` and the like for the other side of a pair, `attack`, or any parameter of the method; a list
                takes any of its values.

        Raises:
            LookupError: a net has none, or more than one row.
        """
        found = {}
        for net in nets:
            rows = [r for r in self.rows if _named(quantity, r.quantity) and _at(r.place, {"model": net, **where})]
            if len(rows) != 1:
                names = sorted({r.quantity for r in self.rows})
                told = [r.place for r in rows[:2]] or names
                raise LookupError(f"{len(rows)} rows are {quantity} of {net} at {where}: {told}")
            found[net] = rows[0].values
        return found

    def settings(self, quantity: str, nets: Sequence[str], name: str, **where: Any) -> dict[Any, Numbers]:
        """setting -> numbers, for every value of the parameter `name`, in order."""
        some = [r for r in self.rows if _named(quantity, r.quantity) and _at(r.place, {"model": nets[0], **where})]
        values = sorted({r.place[name] for r in some if name in r.place}, key=_order)
        return {value: self(quantity, nets, **{**where, name: value}) for value in values}


def _order(value: Any) -> tuple[int, Any]:
    return (1, value) if isinstance(value, str) else (0, value)


def _numbers(record: dict[str, Any], records: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any], Any]]:
    place = _place(record)
    found = [("probability", place, record["target"]["probability"]), ("rank", place, record["target"]["rank"])]
    for name, score in record["scores"].items():
        found.append((name, place, score["value"]))
        if score["floor"] is not None:
            found.append((f"{name} (floor)", place, score["floor"]))
        found += [(f"{name} [{detail}]", place, value) for detail, value in score["details"].items()]
    for similarity in record["similarities"]:
        other = records.get(similarity["to"])
        there = {f"to_{k}": v for k, v in _place(other).items()} if other else {}
        at = place | there | {"role": similarity["role"]}
        found.append((similarity["name"], at, similarity["value"]))
        if similarity["floor"] is not None:
            found.append((f"{similarity['name']} (floor)", at, similarity["floor"]))
    for name, value in record["notes"].items():
        found.append((f"note {name}", place, value))
    attack = record["attack"]
    for name, value in (attack["notes"] if attack else {}).items():
        found.append((f"note {name}", place, value))
    for stage in attack["stages"] if attack else ():
        at = place | {"stage": stage["name"]}
        found.append(("distance", at, stage["distance"]))
        found.append(("found", at, float(stage["distance"] is not None)))
    return found


def _place(record: dict[str, Any]) -> dict[str, Any]:
    method = record["method"]
    title = "+".join([method["name"], *(wrapper["name"] for wrapper in method["wrappers"])])
    place: dict[str, Any] = dict(method["parameters"])
    for wrapper in method["wrappers"]:
        place |= {f"{wrapper['name']}_{k}": v for k, v in wrapper["parameters"].items()}
    place |= {
        "model": record["model"]["name"],
        "method": title,
        "target": record["target"].get("of", record["target"]["rank"]),
    }
    place |= {"noise": record["input"]["noise"], "erased": record["input"]["erased"] is not None}
    attack = record["attack"]
    if attack:
        place["attack"] = attack["kind"]
        place |= {f"attack_{k}": v for k, v in attack["parameters"].items()}
    return place


def _named(asked: str, found: str) -> bool:
    """The same name, and every parameter that is asked for; "x (floor)" and "x [y]" are names of their own."""
    pattern = re.compile(r"^([^:( \[]+)(?::([^( \[]*))?(.*)$")
    a, b = pattern.match(asked), pattern.match(found)
    if not a or not b or a[1] != b[1] or a[3] != b[3]:
        return False
    return set((a[2] or "").split(",")) - {""} <= set((b[2] or "").split(","))


def _at(place: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(place.get(k) in v if isinstance(v, list) else place.get(k) == v for k, v in where.items())


def each(function: Callable[..., float | None], *parts: Numbers) -> Numbers:
    """One number an image from several: `function` of the numbers of all parts; None where one of them is missing."""
    out: Numbers = {}
    for net in parts[0]:
        images = [image for image in parts[0][net] if all(image in part[net] for part in parts)]
        out[net] = {}
        for image in images:
            values = [part[net][image] for part in parts]
            out[net][image] = None if any(v is None for v in values) else function(*values)
    return out
