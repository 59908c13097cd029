"""Every method of `attrsens explain` against Captum doing the same work, and against the floor.

    python benchmarks/explain.py            # all of it; the table goes into benchmarks/README.md
    python benchmarks/explain.py --quick    # tiny sizes, to see that it runs; writes nothing

Both sides and the floor take turns in one process, and every ratio is taken within a round (see `_timing.py`). The
floor is the passes that the method's maths needs, at the bare network's best throughput (see `_sides.py`). Captum has
its best batch setting, found first. Peak memory is read in a fresh process for each side.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _sides import BATCHED, PATCH, Sizes, Subject, floor, ours, passes, peer, subject
from _timing import (
    Sample,
    command,
    interleave,
    machine,
    measure,
    ratio,
    say,
    seconds,
    shared_options,
    show,
    table,
    write_section,
)

MODELS = ("lite0", "resnet50")
METHODS = ("grad", "gi", "sg", "ig", "sp")
FLOOR_BAR, PEER_BAR = 1.15, 1.0
SAME = 0.99  # cosine of the two sides' maps where no noise is drawn; folding flips a few ReLU kinks
QUICK = {
    "rounds": 1,
    "foreign": 1.0,
    "window": 0.1,
    "batches": [4, 8],
    "tune": 1,
    "n": 8,
    "steps": 8,
    "stride": 48,
    "stride_resnet50": 96,
    "peer_stride": 28,
}


@dataclass(frozen=True)
class Row:
    """One method on one model: Captum's best setting and its seconds at each, the clean rounds, what they come to."""

    model: str
    method: str
    passes: int
    setting: int
    settings: dict[int, float]
    scale: float
    kept: list[dict[str, Sample]]
    discarded: int

    @property
    def to_floor(self) -> float | None:
        return ratio(self.kept, "attrsens", "floor")

    @property
    def to_peer(self) -> float | None:
        """Captum's time over ours for the same number of passes."""
        value = ratio(self.kept, "captum", "attrsens")
        return None if value is None else value * self.scale

    def cells(self) -> list[str]:
        peers = seconds(self.kept, "captum")
        setting = f" ({self.setting})" if self.method in BATCHED and self.kept else ""
        return [
            self.model,
            self.method,
            str(self.passes),
            show(seconds(self.kept, "attrsens")),
            show(seconds(self.kept, "floor")),
            show(self.to_floor),
            show(None if peers is None else peers * self.scale) + setting,
            show(self.to_peer),
            f"{len(self.kept)} / {self.discarded}",
        ]


def compare(s: Subject, method: str, sizes: Sizes, args: argparse.Namespace) -> Row:
    """Tune Captum, check that both sides do the same work, then time rounds of both and the floor."""
    own, other, count = ours(s, method, sizes), peer(s, method, sizes), passes(method, sizes)
    result = own() if method != "sp" else ours(s, method, Sizes(1, 1, 96, 96))()  # and so warmed up
    if method != "sp" and result.passes.forward != count:
        raise SystemExit(f"{s.name} {method}: attrsens ran {result.passes.forward} passes, not {count}")
    s.plain.images = 0
    heatmap = other(8)[0]
    peer_count = s.plain.images
    if method != "sp" and peer_count != count:
        raise SystemExit(f"{s.name} {method}: Captum ran {peer_count} passes, not {count}")
    likeness = float(torch.cosine_similarity(heatmap.flatten(), result.map.flatten(), dim=0)) if method != "sp" else 1
    if method not in ("sg", "sp") and likeness < SAME:
        raise SystemExit(f"{s.name} {method}: the maps of the two sides have cosine {likeness:.4f}")
    scale, window, attempts = count / peer_count, args.window, args.attempts or 4 * args.rounds
    settings: dict[int, float] = {}
    best = 1
    if method in BATCHED:
        settings, discarded = tune(other, [b for b in args.batches if b <= count] or [1], args)
        if not settings:  # a setting picked on a busy machine could be a poor one, and flatter us
            say(f"{s.name} {method}: not measured; no clean turn to find Captum's best batch in")
            return Row(s.name, method, count, best, settings, scale, [], discarded)
        best = min(settings, key=lambda b: settings[b])
        found = ", ".join(f"{b}: {show(t)} s" for b, t in settings.items())
        say(f"{s.name} {method}: {peer_count} passes by Captum at {found}; best {best}")
    parts: dict[str, Callable[[], Sample]] = {
        "attrsens": partial(measure, own, window),
        "captum": partial(measure, partial(other, best), window),
        "floor": floor(s, method, sizes, window),
    }
    kept, discarded = interleave(parts, args.rounds, attempts, args.foreign)
    row = Row(s.name, method, count, best, settings, scale, kept, discarded)
    most = max((sample.foreign for samples in kept for sample in samples.values()), default=None)
    say(" | ".join(row.cells()) + ("" if most is None else f" | others took up to {most:.0%} of the CPU"))
    return row


def tune(
    other: Callable[[int], object], batches: Sequence[int], args: argparse.Namespace
) -> tuple[dict[int, float], int]:
    """Captum's seconds at each batch setting, the least of a few clean turns (empty if none was), and the discarded."""
    parts = {f"batch {b}": partial(measure, partial(other, b), args.window) for b in batches}
    kept, discarded = interleave(parts, args.tune, 4 * args.tune, args.foreign)
    return {b: min(turn[f"batch {b}"].seconds for turn in kept) for b in batches if kept}, discarded


def sizes_for(model: str, args: argparse.Namespace) -> Sizes:
    """The heavy network hides fewer places; the comparison is by place."""
    stride = args.stride_resnet50 if model == "resnet50" else args.stride
    return Sizes(args.n, args.steps, stride, args.peer_stride)


# -- memory ----------------------------------------------------------------------------------------------------------


def peak(side: str, model: str, method: str, args: argparse.Namespace) -> dict[str, float]:
    """Resident MB of this process: before a run (network loaded, one image passed), and the peak during it.

    From /proc, since a child's ru_maxrss starts at what its parent held.
    """
    s, sizes = subject(model), sizes_for(model, args)
    ours(s, "grad", sizes)() if side == "attrsens" else peer(s, "grad", sizes)(1)
    run = ours(s, method, sizes) if side == "attrsens" else partial(peer(s, method, sizes), args.batches[0])
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _resident("VmRSS")
    run()
    return {"before": before, "peak": _resident("VmHWM")}


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def memory(rows: Sequence[Row], args: argparse.Namespace) -> list[dict[str, Any]]:
    """`peak` of both sides in a process each, for the methods that make many images of one."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if row.method not in ("sg", "sp"):
            continue
        sizes = sizes_for(row.model, args)
        for side in ("attrsens", "captum"):
            words = [sys.executable, __file__, "--peak", side, "--models", row.model, "--methods", row.method]
            words += ["--batches", str(row.setting), "--n", str(sizes.n), "--peer-stride", str(sizes.peer_stride)]
            words += ["--stride", str(sizes.stride), "--stride-resnet50", str(sizes.stride)]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
            found.append({"model": row.model, "method": row.method, "side": side, **json.loads(done.stdout)})
            say(f"memory: {found[-1]}")
    return found


# -- report ----------------------------------------------------------------------------------------------------------


def bars(rows: Sequence[Row]) -> str:
    """Every bar with its outcome."""
    close = {f"{r.model} {r.method}": r.to_floor for r in rows if r.method in BATCHED}
    faster = {f"{r.model} {r.method}": r.to_peer for r in rows}
    return "\n".join(
        f"- {bar}: {_outcome(values, met)}"
        for bar, values, met in (
            (f"attrsens / floor at most {FLOOR_BAR} for {', '.join(BATCHED)}", close, lambda v: v <= FLOOR_BAR),
            (f"captum / attrsens above {PEER_BAR:.0f} in every row", faster, lambda v: v > PEER_BAR),
        )
    )


def _outcome(values: Mapping[str, float | None], met: Callable[[float], bool]) -> str:
    missing = [name for name, value in values.items() if value is None]
    failed = [f"{name} {value:.3f}" for name, value in values.items() if value is not None and not met(value)]
    if failed:
        return f"**not met**: {', '.join(failed)}"
    return f"**not known**: no clean round for {', '.join(missing)}" if missing else "**met**"


def report(rows: Sequence[Row], used: Sequence[Mapping[str, Any]], facts: Mapping[str, str], line: str) -> str:
    """The section of README.md."""
    head = ["model", "method", "passes", "attrsens, s", "floor, s", "attrsens / floor"]
    head += ["captum, s (batch)", "captum / attrsens", "rounds kept / discarded"]
    text = [f"```\n{line}\n```", "; ".join(f"{k}: {v}" for k, v in facts.items()) + "."]
    text += [table(head, [row.cells() for row in rows]), bars(rows)]
    if used:
        cells = [
            [m["model"], m["method"], m["side"], *(f"{m[k]:.0f}" for k in ("before", "peak")), _rise(m)] for m in used
        ]
        text += ["Resident memory, one fresh process a row:"]
        text += [table(["model", "method", "side", "before, MB", "peak, MB", "rise, MB"], cells)]
        places = {r.model: r.passes - 1 for r in rows if r.method == "sp"}
        image = 3 * 224 * 224 * 4 / 2**20
        held = ", ".join(f"{n * image:.0f} MB for the {n} of {model}" for model, n in places.items())
        text += [f"All occluded images of one sp run held at once would take {held}." if held else ""]
    return "\n\n".join(part for part in text if part)


def _rise(found: Mapping[str, Any]) -> str:
    return f"{found['peak'] - found['before']:.0f}"


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """An argparse type: a comma list of known names."""

    def read(text: str) -> list[str]:
        chosen = text.split(",")
        if set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"choose among {', '.join(known)}")
        return chosen

    return read


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=names(MODELS), default=[*MODELS])
    parser.add_argument("--methods", type=names(METHODS), default=[*METHODS])
    parser.add_argument("--n", type=int, default=50, help="draws of sg")
    parser.add_argument("--steps", type=int, default=50, help="points of ig")
    parser.add_argument("--stride", type=int, default=3, help=f"of attrsens' sp, patch {PATCH}")
    parser.add_argument("--stride-resnet50", type=int, default=8, help="the same on resnet50")
    parser.add_argument("--peer-stride", type=int, default=24, help=f"of Captum's sp (at most {PATCH}), by place")
    parser.add_argument("--batches", type=numbers, default=[1, 4, 8, 10, 16, 32], help="Captum's settings to try")
    parser.add_argument("--tune", type=int, default=2, help="turns of every setting; its least time counts")
    parser.add_argument("--window", type=float, default=1.0, help="seconds that a part of a round lasts at least")
    shared_options(parser, rounds=5)
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, nothing discarded, README.md left as it is")
    parser.add_argument("--json", type=Path, help="also write every sample here")
    parser.add_argument("--peak", choices=("attrsens", "captum"), help=argparse.SUPPRESS)
    return parser


def main() -> None:
    warnings.simplefilter("ignore")
    parser = options()
    args = parser.parse_args()
    if args.peak:
        print(json.dumps(peak(args.peak, args.models[0], args.methods[0], args)))
        return
    line = command("explain.py")
    if args.quick:
        parser.set_defaults(**QUICK)  # what is given beside --quick still wins
        args = parser.parse_args()
    rows = []
    for model in args.models:
        s = subject(model)
        rows += [compare(s, method, sizes_for(model, args), args) for method in args.methods]
    used = [] if args.no_memory else memory(rows, args)
    facts = machine(["attrsens", "torch", "captum"])
    text = report(rows, used, facts, line)
    print(text)
    if args.json:
        found = [{**asdict(r), "to_floor": r.to_floor, "to_peer": r.to_peer} for r in rows]
        args.json.write_text(json.dumps({"command": line, "machine": facts, "rows": found, "memory": used}, indent=1))
    if not (args.quick or args.no_readme):
        write_section("explain", text)


if __name__ == "__main__":
    main()
