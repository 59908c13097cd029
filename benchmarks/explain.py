"""Every method of `attrsens explain` against its best peer, and against the floor.

    python benchmarks/explain.py            # lite0; the table goes into benchmarks/README.md
    python benchmarks/explain.py --quick    # tiny sizes, to see that it runs; writes nothing

All sides and the floor take turns in one process, and every ratio is taken within a round (see `_timing.py`). The floor
is the passes that the method's maths needs, at the bare network's best throughput (`_sides.py`). How much work each
method does is in `_works.py`, the peers are in `_peers.py` and `_loops.py`.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from _memory import MEASURED, memory, shown
from _options import names, peer_options, read
from _peers import Peer, peers
from _sides import Subject, floor, ours, subject
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
from _works import BARS, METHODS, PATCH, Work, works

MODELS = ("lite0", "resnet50")
FASTER = {  # peer / attrsens at least, on lite0; every other row: not slower
    ("sg", "Captum's defaults"): 5.0,
    ("ig", "Captum's defaults"): 4.0,
    ("lime", "lime_image"): 1.3,
}
HEAD = ["model", "method", "work", "attrsens / floor", "peer / attrsens", "peer (batch)", "cosine of maps"]
HEAD += ["attrsens, s", "floor, s", "peer, s", "rounds kept / discarded"]
SIZES = {  # option: (default, --full, --quick, what)
    "n": (50, 50, 8, "draws of sg"),
    "few": (16, 50, 4, "draws of ug, vargrad, sgsq and bsg, points of big"),
    "steps": (50, 50, 8, "points of ig"),
    "stride": (12, 3, 48, f"of sp, patch {PATCH}; Captum's is 24 at least, compared by pass"),
    "stride-resnet50": (24, 8, 96, "the same on resnet50"),
    "lime-n": (200, 1000, 20, "samples of lime"),
    "rise-n": (200, 4000, 20, "masks of rise"),
    "kshap-n": (200, 1000, 60, "coalitions of kshap"),
    "mp-steps": (20, 300, 2, "iterations of mp"),
    "images": (8, 8, 2, "that mp, bsm and big advance together"),
    "search-steps": (4, 40, 1, "iterations of the boundary search of bsm, big and bsg"),
    "bisect": (2, 10, 1, "halvings of that search"),
    "polish": (1, 2, 1, "projections of that search"),
    "k": (15, 15, 3, "classes of agi"),
    "agi-steps": (3, 15, 1, "steps of agi to each class"),
}


@dataclass
class Row:
    """One method on one model: what its peers are, and the clean rounds."""

    model: str
    work: Work
    peers: dict[str, dict[str, Any]]  # name: batch, scale to our passes, cosine of the two maps
    failed: list[str] = field(default_factory=list)  # peers that do not run on this network
    kept: list[dict[str, Sample]] = field(default_factory=list)
    discarded: int = 0

    @property
    def to_floor(self) -> float | None:
        return ratio(self.kept, "attrsens", "floor")

    @property
    def to_peers(self) -> dict[str, float | None]:
        """Each peer's time over ours for the same work."""
        found = {name: ratio(self.kept, name, "attrsens") for name in self.peers}
        return {name: None if v is None else v * self.peers[name]["scale"] for name, v in found.items()}

    def lines(self) -> list[list[str]]:
        """A line for each peer, the fastest first."""
        start = [self.model, self.work.method, self.work.text, show(self.to_floor)]
        own, least = show(seconds(self.kept, "attrsens")), show(seconds(self.kept, "floor"))
        rounds = f"{len(self.kept)} / {self.discarded}"
        if not self.peers:
            none = f"{', '.join(self.failed)} fails" if self.failed else "none installed"
            return [[*start, "-", none, "-", own, least, "-", rounds]]
        lines = []
        for name, value in sorted(self.to_peers.items(), key=lambda pair: pair[1] or 0):
            facts, took = self.peers[name], seconds(self.kept, name)
            label = f"{name} ({facts['batch']})" if facts["batch"] else name
            took = None if took is None else took * facts["scale"]
            lines.append([*start, show(value), label, show(facts["cosine"]), own, least, show(took), rounds])
        return lines


def compare(s: Subject, work: Work, a: argparse.Namespace) -> Row:
    """Check that both sides do the same work, find batch settings, then time rounds of all sides and the floor."""
    name = f"{s.name} {work.method}"
    own, others = ours(s, work), peers(s, work)
    heatmap, passes = own()  # and so warmed up
    count, back = work.forward * work.images, work.backward * work.images
    if (passes.forward, passes.backward) != (count, back):
        raise SystemExit(f"{name}: attrsens made {passes}, not {count} forward and {back} back")
    parts: dict[str, Callable[[], Sample]] = {"attrsens": partial(measure, own, a.window)}
    row = Row(s.name, work, {})
    for other in others:
        try:
            facts = _facts(name, other, heatmap, count)
        except Exception as error:  # such as Captum's DeepLift where a ReLU module is used twice
            say(f"{name}: {other.name} fails: {str(error)[:200]}")
            row.failed.append(other.name)
            continue
        if other.tune:
            found, discarded = tune(other, a)
            if not found:  # a setting picked on a busy machine could be a poor one, and flatter us
                say(f"{name}: not measured; no clean turn to find {other.name}'s best batch in")
                row.discarded = discarded
                return row
            facts["batch"] = min(found, key=lambda b: found[b])
            say(f"{name}: {other.name} at " + ", ".join(f"{b}: {show(t)} s" for b, t in found.items()))
        row.peers[other.name] = facts
        parts[other.name] = other.timed(facts["batch"] or 8, a.window)
    parts["floor"] = floor(s, work, a.window)
    row.kept, row.discarded = interleave(parts, a.rounds, a.attempts or 4 * a.rounds, a.foreign)
    for line in row.lines():
        say(" | ".join(line))
    return row


def _facts(name: str, other: Peer, heatmap: torch.Tensor, count: int) -> dict[str, Any]:
    """How a peer's work and map compare with ours."""
    other.net.images = 0
    theirs = other.run(8)
    scale = count / other.net.images if other.scaled else 1.0
    if other.net.images != count:
        say(f"{name}: {other.name} makes {other.net.images} passes forward, attrsens {count}")
    cosine = torch.cosine_similarity(theirs.flatten(), heatmap.flatten(), dim=0) if other.same else None
    return {"batch": None, "scale": scale, "cosine": None if cosine is None else float(cosine)}


def tune(other: Peer, a: argparse.Namespace) -> tuple[dict[int, float], int]:
    """Its seconds at each batch setting, the least of a few clean turns (empty if none was), and the discarded."""
    parts = {f"batch {b}": other.timed(b, 0.0) for b in a.batches}
    kept, discarded = interleave(parts, a.tune, 4 * a.tune, a.foreign)
    return {b: min(turn[f"batch {b}"].seconds for turn in kept) for b in a.batches if kept}, discarded


# -- report ----------------------------------------------------------------------------------------------------------


def bars(rows: Sequence[Row]) -> str:
    """Every bar with its outcome; those on the floor hold for lite0."""
    lines = []
    for bar in sorted(set(BARS.values())):
        close = {r.work.method: r.to_floor for r in rows if r.model == "lite0" and BARS.get(r.work.method) == bar}
        lines.append((f"attrsens / floor at most {bar} for {', '.join(close)}", close, lambda v, bar=bar: v <= bar))
    for row in rows:
        for (method, name), bar in FASTER.items():
            if (row.model, row.work.method) == ("lite0", method) and name in row.peers:
                value = {method: row.to_peers[name]}
                lines.append((f"{name} / attrsens at least {bar} for {method}", value, lambda v, bar=bar: v >= bar))
    every = {f"{r.model} {r.work.method} ({name})": v for r in rows for name, v in r.to_peers.items()}
    lines.append(("no method slower than any of its peers", every, lambda v: v >= 1))
    return "\n".join(f"- {bar}: {outcome(values, met)}" for bar, values, met in lines if values)


def outcome(values: Mapping[str, float | None], met: Callable[[float], bool]) -> str:
    """Met, not met by which, or not known."""
    missing = [name for name, value in values.items() if value is None]
    failed = [f"{name} {value:.3f}" for name, value in values.items() if value is not None and not met(value)]
    if failed:
        return f"**not met**: {', '.join(failed)}"
    return f"**not known**: no clean round for {', '.join(missing)}" if missing else "**met**"


def report(rows: Sequence[Row], used: Sequence[dict[str, Any]], facts: Mapping[str, str], line: str) -> str:
    """The section of README.md."""
    text = [f"```\n{line}\n```", "; ".join(f"{k}: {v}" for k, v in facts.items()) + "."]
    text += [table(HEAD, [cells for row in rows for cells in row.lines()]), bars(rows)]
    if used:
        text += ["Resident memory, one fresh process a row:", shown(used)]
    return "\n\n".join(text)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=names(MODELS), default=["lite0"], help="lite0 (default), resnet50")
    parser.add_argument("--methods", type=names(METHODS), default=[*METHODS], help="a comma list")
    for name, (default, full, _, what) in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (%(default)s; --full: {full})")
    peer_options(parser)
    parser.add_argument("--memory", action="store_true", help="also the peak memory of sg and sp")
    parser.add_argument("--full", action="store_true", help="the published sizes: about an hour")
    return parser


def main() -> None:
    warnings.simplefilter("ignore")
    a, line = (
        read(options(), {k: v[2] for k, v in SIZES.items()}, {k: v[1] for k, v in SIZES.items()}),
        command("explain.py"),
    )
    rows = []
    for model in a.models:
        wanted = [work for name, work in works(model, a).items() if name in a.methods]
        for relu in sorted({work.relu for work in wanted}):
            s = subject(model, relu, max(work.images for work in wanted))
            rows += [compare(s, work, a) for work in wanted if work.relu == relu]
    rows.sort(key=lambda row: (a.models.index(row.model), METHODS.index(row.work.method)))
    measured = [r for r in rows if r.work.method in MEASURED] if a.memory else []
    used = memory(
        [(r.model, r.work.method, next(p["batch"] for p in r.peers.values())) for r in measured if r.peers], a
    )
    facts = machine(["attrsens", "torch", "captum", "lime", "zennit", "grad-cam"])
    text = report(rows, used, facts, line)
    print(text)
    if a.json:
        found = [{**asdict(r), "to_floor": r.to_floor, "to_peers": r.to_peers} for r in rows]
        a.json.write_text(json.dumps({"command": line, "machine": facts, "rows": found, "memory": used}, indent=1))
    if not (a.quick or a.no_readme):
        write_section("explain", text)


if __name__ == "__main__":
    main()
