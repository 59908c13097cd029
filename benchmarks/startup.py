"""Cold start: what one gradient on the command line costs beside `import torch`, and what torch-free commands cost.

    python benchmarks/startup.py

Every run is a fresh process with files in the page cache. A command and its yardstick take turns, and the ratio is
taken within a pair (see `_timing.py`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path

from _timing import (
    Part,
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

from attrsens.samples import samples

SCRIPT = Path(sys.executable).parent / "attrsens"
ATTRSENS = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "attrsens"]
TORCH, NOTHING = "import torch", "pass"


def run(words: Sequence[str]) -> Sample:
    """One process from start to exit; its output is dropped.

    Raises:
        CalledProcessError: it failed.
    """
    return measure(partial(subprocess.run, words, check=True, stdout=subprocess.DEVNULL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shared_options(parser, rounds=9)
    args = parser.parse_args()
    picture = next(s.path for s in samples().values() if s.path.suffix == ".jpg")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        fresh = (Path(folder, str(i)) for i in count())
        explain = ["explain", str(picture), "--method", "grad", "--no-cache", "-q", "--out"]
        shown = f"explain {picture.name} --method grad --no-cache -q"
        for title, words, yardstick in (
            (shown, explain, TORCH),
            ("--help", ["--help"], NOTHING),
            ("list methods", ["list", "methods"], NOTHING),
        ):

            def ours(words: list[str] = words) -> Sample:
                return run([*ATTRSENS, *words, *([str(next(fresh))] if words[-1] == "--out" else [])])

            parts: dict[str, Part] = {"attrsens": ours, "yardstick": partial(run, [sys.executable, "-c", yardstick])}
            for part in parts.values():  # once, so that files are in the page cache
                part()
            kept, discarded = interleave(parts, args.rounds, args.attempts or 4 * args.rounds, args.foreign)
            cells = [f"`attrsens {title}`", f"`python -c '{yardstick}'`"]
            cells += [show(seconds(kept, part)) for part in parts]
            rows.append([*cells, show(ratio(kept, "attrsens", "yardstick")), f"{len(kept)} / {discarded}"])
            say(" | ".join(rows[-1]))
    head = ["command", "beside", "seconds", "beside, s", "ratio", "pairs kept / discarded"]
    facts = machine(["attrsens", "torch"])
    parts_of_text = [f"```\n{command('startup.py')}\n```"]
    parts_of_text += ["; ".join(f"{k}: {v}" for k, v in facts.items()) + ".", table(head, rows)]
    text = "\n\n".join(parts_of_text)
    print(text)
    if not args.no_readme:
        write_section("startup", text)


if __name__ == "__main__":
    main()
