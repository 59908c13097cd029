"""Scores and similarities of attrsens against their best peers, and against the floor.

    python benchmarks/score.py            # lite0; the table goes into benchmarks/README.md
    python benchmarks/score.py --quick    # tiny sizes, to see that it runs; writes nothing

As in `explain.py`, all sides and the floor take turns in one process, every ratio is taken within a round, and the
floor is the passes that the maths needs at the bare network's best throughput. What is measured is in `_judged.py`,
the peers are in `_score_peers.py` and `_loops.py`.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from _judged import FLOOR, NAMES, Judged, Task, all_pairs, known, similar_maps, tasks
from _options import names, peer_options, read
from _peers import Peer
from _score_peers import pairwise, score_peers
from _sides import Subject, floor, subject
from _timing import (
    Sample,
    command,
    interleave,
    machine,
    measure,
    ratio,
    say,
    seconds,
    show,
    table,
    write_section,
)
from explain import outcome, tune

FASTER = {("curves", "RISE's loop"): 2.8, ("sensitivity", "Quantus"): 2.0}  # every other row: not slower
HEAD = ["score", "passes (made)", "attrsens / floor", "peer / attrsens", "peer (batch)", "value", "peer's value"]
HEAD += ["attrsens, s", "floor, s", "peer, s", "rounds kept / discarded"]
SIZES = {  # option: (default, --quick, what)
    "step": (224, 6272, "pixels a step of the fine curves"),
    "coarse": (1792, 12544, "pixels a step of the coarse curves"),
    "maps": (8, 2, "maps that are judged together"),
    "n": (50, 8, "copies of max_sensitivity of grad"),
    "sg-n": (5, 2, "draws of sg, whose max_sensitivity is measured, too"),
    "sg-copies": (20, 3, "copies of that"),
    "squares": (200, 20, "of infidelity"),
    "subsets": (100, 10, "of faithfulness"),
    "similar": (128, 8, "maps that are all compared"),
    "pairs": (64, 4, "pairs of these that SciPy and scikit-image compare; their time is taken by pair"),
}


@dataclass
class Row:
    """One task: what its peers are, and the clean rounds."""

    task: Task
    made: str
    values: list[float]
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)  # name: batch, scale to our work, values
    kept: list[dict[str, Sample]] = field(default_factory=list)
    discarded: int = 0

    @property
    def to_floor(self) -> float | None:
        return ratio(self.kept, "attrsens", "floor") if self.task.forward else None

    @property
    def to_peers(self) -> dict[str, float | None]:
        """Each peer's time over ours for the same work."""
        found = {name: ratio(self.kept, name, "attrsens") for name in self.peers}
        return {name: None if v is None else v * self.peers[name]["scale"] for name, v in found.items()}

    def lines(self) -> list[list[str]]:
        """A line for each peer, the fastest first."""
        lines = []
        for name, value in sorted(self.to_peers.items(), key=lambda pair: pair[1] or 0):
            facts, took = self.peers[name], seconds(self.kept, name)
            line = [self.task.text, self.made, show(self.to_floor), show(value)]
            line += [f"{name} ({facts['batch']})" if facts["batch"] else name]
            line += [", ".join(map(show, values)) or "-" for values in (self.values, facts["values"])]
            line += [show(seconds(self.kept, "attrsens"))]
            line += [show(seconds(self.kept, "floor") if self.task.forward else None)]
            line += [show(None if took is None else took * facts["scale"]), f"{len(self.kept)} / {self.discarded}"]
            lines.append(line)
        return lines


def compare(s: Subject, task: Task, a: argparse.Namespace) -> Row:
    """Check that both sides do the same work, find batch settings, then time rounds of all sides and the floor.

    Raises:
        SystemExit: attrsens made other passes than its maths needs, or a peer that should agree does not.
    """
    own = Judged(s, task)
    made = own()  # and so warmed up
    spare = made.forward - task.forward, made.backward - task.backward
    if not all(0 <= extra < max(s.classifier.sizes) for extra in spare):
        raise SystemExit(f"{task.name}: attrsens made {made}, not {task.forward} forward and {task.backward} back")
    row = Row(task, f"{task.forward} ({made.forward})", made.values)
    parts: dict[str, Callable[[], Sample]] = {"attrsens": partial(measure, own, a.window)}
    for other in score_peers(s, task, own):
        facts = _facts(task, other, made.values)
        if other.tune:
            found, discarded = tune(other, a)
            if not found:  # a setting picked on a busy machine could be a poor one, and flatter us
                say(f"{task.name}: not measured; no clean turn to find {other.name}'s best batch in")
                row.discarded = discarded
                return row
            facts["batch"] = min(found, key=lambda b: found[b])
            say(f"{task.name}: {other.name} at " + ", ".join(f"{b}: {show(t)} s" for b, t in found.items()))
        row.peers[other.name] = facts
        parts[other.name] = other.timed(facts["batch"] or 8, a.window)
    parts["floor"] = floor(s, task.work, a.window)
    return _timed(row, parts, a)


def _facts(task: Task, other: Peer, ours: Sequence[float]) -> dict[str, Any]:
    """How a peer's work and values compare with ours."""
    other.net.images = 0
    values = other.run(8).flatten().tolist()
    count = other.net.images
    if count:
        say(f"{task.name}: {other.name} makes {count} passes forward, the maths needs {task.forward}")
    apart = max(abs(left - right) for left, right in zip(ours, values, strict=False))
    if other.same and apart > 1e-3:
        raise SystemExit(f"{task.name}: {other.name} finds {values}, attrsens {list(ours)}")
    return {"batch": None, "scale": task.forward / count if other.scaled else 1.0, "values": values}


def compare_pairs(s: Subject, task: Task, a: argparse.Namespace, maps: torch.Tensor) -> Row:
    """The same of a similarity: all pairs at once on our side, a few pairs one after another on the other.

    The values are of the first pair.
    """
    ours = all_pairs(task.name, maps)
    title, pairs, theirs = pairwise(task.name, maps, a.pairs)
    (i, j), matrix = pairs[0], ours()
    row = Row(task, "-", [float(matrix[i, j])])
    count = len(maps) * (len(maps) - 1) // 2
    row.peers[title] = {"batch": None, "scale": count / len(pairs), "values": theirs()[:1]}
    parts = {"attrsens": partial(measure, ours, a.window), title: partial(measure, theirs, a.window)}
    return _timed(row, parts, a)


def _timed(row: Row, parts: dict[str, Callable[[], Sample]], a: argparse.Namespace) -> Row:
    row.kept, row.discarded = interleave(parts, a.rounds, a.attempts or 4 * a.rounds, a.foreign)
    for line in row.lines():
        say(" | ".join(line))
    return row


# -- report ----------------------------------------------------------------------------------------------------------


def bars(rows: Sequence[Row]) -> str:
    """Every bar with its outcome."""
    close = {r.task.name: r.to_floor for r in rows if r.task.forward}
    lines = [(f"attrsens / floor at most {FLOOR} for {', '.join(close)}", close, lambda v: v <= FLOOR)]
    for (score, name), bar in FASTER.items():
        value = {r.task.name: r.to_peers[name] for r in rows if r.task.name == score and name in r.peers}
        lines.append((f"{name} / attrsens at least {bar} for {score}", value, lambda v, bar=bar: v >= bar))
    every = {f"{r.task.name} ({name})": v for r in rows for name, v in r.to_peers.items()}
    lines.append(("nothing slower than any of its peers", every, lambda v: v >= 1))
    return "\n".join(f"- {bar}: {outcome(values, met)}" for bar, values, met in lines if values)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scores", type=names(NAMES), default=[*NAMES], help=f"a comma list of {', '.join(NAMES)}")
    for name, (default, _, what) in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (%(default)s)")
    peer_options(parser)
    return parser


def main() -> None:
    warnings.simplefilter("ignore")
    a, line = read(options(), {k: v[1] for k, v in SIZES.items()}), command("score.py")
    s = subject("lite0", relu=False, count=1)
    rows, maps = [], None
    for task in tasks(a, tuple(s.pixels.shape)):
        if task.name not in a.scores:
            continue
        if not known(task):
            say(f"{task.name}: this attrsens has no such similarity")
        elif task.forward:
            rows.append(compare(s, task, a))
        else:
            maps = similar_maps(s, a.similar) if maps is None else maps
            rows.append(compare_pairs(s, task, a, maps))
    facts = machine(["attrsens", "torch", "captum", "quantus", "scipy", "scikit-image"])
    text = "\n\n".join(
        [
            f"```\n{line}\n```",
            "; ".join(f"{k}: {v}" for k, v in facts.items()) + ".",
            table(HEAD, [cells for row in rows for cells in row.lines()]),
            bars(rows),
        ]
    )
    print(text)
    if a.json:
        found = [{**asdict(r), "to_floor": r.to_floor, "to_peers": r.to_peers} for r in rows]
        a.json.write_text(json.dumps({"command": line, "machine": facts, "rows": found}, indent=1))
    if not (a.quick or a.no_readme):
        write_section("score", text)


if __name__ == "__main__":
    main()
