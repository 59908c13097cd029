"""Resident memory of one side of one method, each in a fresh process: `python _memory.py` with explain.py's options."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _timing import say, table
from _works import Work, works

MEASURED = ("sg", "sp")  # they make many images of one
HEAD = ["model", "method", "side", "before, MB", "peak, MB", "rise, MB"]


def peak(side: str, model: str, method: str, batch: int, a: Namespace) -> dict[str, float]:
    """Resident MB of this process: before a run (network loaded, one image passed), and the peak during it.

    From /proc, since a child's ru_maxrss starts at what its parent held.
    """
    from _peers import peers
    from _sides import ours, subject

    own, one = works(model, a)[method], works(model, a)["grad"]
    s = subject(model, relu=False, count=1)

    def run(work: Work) -> None:
        if side == "attrsens":
            ours(s, work)()
        else:
            peers(s, work)[0].run(batch)

    run(one)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _resident("VmRSS")
    run(own)
    return {"before": before, "peak": _resident("VmHWM")}


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def memory(cases: Sequence[tuple[str, str, int]], a: Namespace) -> list[dict[str, Any]]:
    """`peak` of both sides in a process each; a case is (model, method, Captum's batch)."""
    sizes = {key: value for key, value in vars(a).items() if isinstance(value, int)}
    found: list[dict[str, Any]] = []
    for model, method, batch in cases:
        for side in ("attrsens", "Captum"):
            words = [sys.executable, __file__, side, model, method, str(batch), json.dumps(sizes)]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
            found.append({"model": model, "method": method, "side": side, **json.loads(done.stdout)})
            say(f"memory: {found[-1]}")
    return found


def shown(used: Sequence[dict[str, Any]]) -> str:
    """The table."""
    rows = [
        [m["model"], m["method"], m["side"], *(f"{v:.0f}" for v in (m["before"], m["peak"], m["peak"] - m["before"]))]
        for m in used
    ]
    return table(HEAD, rows)


if __name__ == "__main__":
    side, model, method, batch, sizes = sys.argv[1:]
    print(json.dumps(peak(side, model, method, int(batch), Namespace(**json.loads(sizes)))))
