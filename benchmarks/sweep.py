"""Sweeps of attrsens against a plain loop over their settings with the best peer, and against the floor.

    python benchmarks/sweep.py            # lite0; the table goes into benchmarks/README.md
    python benchmarks/sweep.py --quick    # tiny sizes, to see that it runs; writes nothing

As in `explain.py`, all sides and the floor take turns in one process, every ratio is taken within a round, and the
floor is the passes that the maths needs, here with everything shared that can be. A peer computes setting after
setting, as far as `--peer-passes` goes; the rest is extrapolated by pass. What is measured is in `_swept.py`.
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
from _options import names, numbers, peer_options, read
from _peers import Peer
from _sides import Subject, subject
from _swept import NAMES, PATCHES, STRIDE, Ours, Task, floors, places_of, tasks, theirs
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

CLOSE = 1.15  # maps / floor at most
HEAD = ["sweep", "passes", "setting by setting", "maps / floor", "attrsens / floor", "peer / attrsens", "peer (batch)"]
HEAD += ["peer ran", "maps, s", "attrsens, s", "floor, s", "peer, s", "rounds kept / discarded"]
SIZES = {  # option: (default, --quick, what)
    "sg-n": ([50, 100, 200, 500, 800], [2, 4, 9], "draws of sg"),
    "mp-steps": ([10, 150, 300, 450], [1, 2, 4], "steps of mp"),
    "mp-blur-steps": (300, 2, "steps of mp at each blur radius"),
    "lime-seed-n": (1000, 20, "samples of lime at each seed"),
    "lime-n": ([500, 1000], [10, 20], "samples of lime at each kernel width"),
    "sp-stride": (16, 64, "stride of sp; Captum's is 24 at least, compared by pass"),
    "peer-passes": (500, 20, "passes of a peer in a round: as many settings as take no more, one at least"),
}


@dataclass
class Row:
    """One sweep: its peers, and the clean rounds.

    Attributes:
        batch: the peer's.
        ran: passes that it makes in a round.
        peers: name: passes that it needs for all settings.
    """

    task: Task
    batch: int | None = None
    ran: int = 0
    peers: dict[str, int] = field(default_factory=dict)
    kept: list[dict[str, Sample]] = field(default_factory=list)
    discarded: int = 0

    @property
    def to_floor(self) -> float | None:
        return ratio(self.kept, "maps", "floor")

    @property
    def to_peers(self) -> dict[str, float | None]:
        """Each peer's time for all settings over that of the whole sweep."""
        found = ratio(self.kept, "peer", "attrsens")
        return {name: None if found is None else found * whole / self.ran for name, whole in self.peers.items()}

    def lines(self) -> list[list[str]]:
        """A line for each peer, the fastest first."""
        start = [self.task.text, *map(_passes, (self.task.shared, self.task.unshared))]
        start += [show(self.to_floor), show(ratio(self.kept, "attrsens", "floor"))]
        own = [show(seconds(self.kept, part)) for part in ("maps", "attrsens", "floor")]
        rounds, took = f"{len(self.kept)} / {self.discarded}", seconds(self.kept, "peer")
        lines = []
        for name, value in sorted(self.to_peers.items(), key=lambda pair: pair[1] or 0):
            label = f"{name} ({self.batch})" if self.batch else name
            whole = self.peers[name]
            spent = show(None if took is None else took * whole / self.ran)
            lines.append([*start, show(value), label, f"{min(1, self.ran / whole):.0%}", *own, spent, rounds])
        return lines or [[*start, "-", self.task.title, "-", *own, "-", rounds]]


def _passes(made: tuple[int, int]) -> str:
    """Forward, and back if any go back."""
    forward, backward = made
    return f"{forward:,} F + {backward:,} B" if backward else f"{forward:,} F"


def compare(s: Subject, task: Task, a: argparse.Namespace) -> Row:
    """Check passes and maps, find the peer's batch, then time rounds of all sides and the floor."""
    ours, row = Ours(s, task), Row(task)
    ours.check()  # and so warmed up
    first, peer = theirs(s, task, a.peer_passes)
    row.ran = _ran(task, peer, ours.maps())
    if first.tune:
        found, row.discarded = tune(first, a)
        if not found:  # a setting picked on a busy machine could be a poor one, and flatter us
            say(f"{task.name}: not measured; no clean turn to find {task.title}'s best batch in")
            return row
        row.batch = min(found, key=lambda b: found[b])
        say(f"{task.name}: {task.title} at " + ", ".join(f"{b}: {show(t)} s" for b, t in found.items()))
    row.peers[task.title] = task.theirs
    if task.loop:
        row.peers[f"{task.title}, all maps from one run"] = task.loop
    parts: dict[str, Callable[[], Sample]] = {
        "attrsens": partial(measure, ours.whole, a.window),
        "maps": partial(measure, ours.maps, a.window),
        "peer": peer.timed(row.batch or 8, a.window),
        "floor": floors(s, task, a.window),
    }
    row.kept, row.discarded = interleave(parts, a.rounds, a.attempts or 4 * a.rounds, a.foreign)
    for line in row.lines():
        say(" | ".join(line))
    return row


def _ran(task: Task, peer: Peer, maps: Sequence[torch.Tensor]) -> int:
    """The passes that the peer makes.

    Raises:
        SystemExit: its first map should be ours, and is not.
    """
    peer.net.images = 0
    theirs = peer.run(8)
    if peer.same:
        cosine = float(torch.cosine_similarity(theirs.flatten(), maps[0].flatten(), dim=0))
        if cosine < 0.999:
            raise SystemExit(f"{task.name}: {peer.name}'s first map and attrsens' have a cosine of {cosine:.4f}")
    return peer.net.images


# -- report ----------------------------------------------------------------------------------------------------------


def fine(row: Row, stride: int) -> str:
    """What sp would take at the published stride, by pass."""
    passes = sum(places_of(patch, STRIDE) for patch in PATCHES)
    took, theirs = seconds(row.kept, "maps"), seconds(row.kept, "peer")
    if took is None or theirs is None:
        return ""
    own, other = (f"{t * passes:,.0f} s" for t in (took / row.task.shared[0], theirs / row.ran))
    return (
        f"sp at the published stride {STRIDE} is {passes:,} passes, of which stride {stride} is "
        f"{row.task.shared[0] / passes:.1%}. Extrapolated by pass: attrsens {own}, Captum {other}."
    )


def bars(rows: Sequence[Row]) -> str:
    """Every bar with its outcome."""
    close = {r.task.name: r.to_floor for r in rows}
    every = {f"{r.task.name} ({name})": v for r in rows for name, v in r.to_peers.items()}
    lines: list[tuple[str, dict[str, float | None], Callable[[float], bool]]] = [
        (f"maps / floor at most {CLOSE}", close, lambda v: v <= CLOSE),
        ("no sweep slower than any of its peers, similarities included", every, lambda v: v >= 1),
    ]
    return "\n".join(f"- {bar}: {outcome(values, met)}" for bar, values, met in lines if values)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sweeps", type=names(NAMES), default=[*NAMES], help=f"a comma list of {', '.join(NAMES)}")
    for name, (default, _, what) in SIZES.items():
        kind, shown = (numbers, ",".join(map(str, default))) if isinstance(default, list) else (int, default)
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{what} ({shown})")
    peer_options(parser)
    return parser


def main() -> None:
    warnings.simplefilter("ignore")
    a, line = read(options(), {k: v[1] for k, v in SIZES.items()}), command("sweep.py")
    s = subject("lite0", relu=False, count=1)
    rows = [compare(s, task, a) for task in tasks(a) if task.name in a.sweeps]
    facts = machine(["attrsens", "torch", "captum", "lime"])
    text = [f"```\n{line}\n```", "; ".join(f"{k}: {v}" for k, v in facts.items()) + "."]
    text += [table(HEAD, [cells for row in rows for cells in row.lines()])]
    text += [fine(row, a.sp_stride) for row in rows if row.task.name == "sp-patch"]
    text += [bars(rows)]
    page = "\n\n".join(part for part in text if part)
    print(page)
    if a.json:
        found: list[dict[str, Any]] = [{**asdict(r), "to_floor": r.to_floor, "to_peers": r.to_peers} for r in rows]
        a.json.write_text(json.dumps({"command": line, "machine": facts, "rows": found}, indent=1))
    if not (a.quick or a.no_readme):
        write_section("sweep", page)


if __name__ == "__main__":
    main()
