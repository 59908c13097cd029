"""The papers' claims put to the test: `python docs/reproduction list | run STUDY... | page`.

    python docs/reproduction run sam-noise --data DIR --work DIR
    python docs/reproduction run --all --data DIR --work DIR      # hours on two cores; goes on where it stopped
    python docs/reproduction images --data DIR                    # writes common.txt: images that all nets get right
    python docs/reproduction page                                 # writes docs/reproduction.md from results/*.json

DIR of --data holds cifar10-test.npz, mnist1000.npz, imagenet/, boxes/, masks/, sam/ and models/; small nets come from
docs/reproduction/nets (docs/reference_nets.sh makes them).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
from figures import draw
from page import page
from reading import Table
from studies import FIGURES, HERE, NETS, RESULTS, STUDIES, results
from study import Study


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="docs/reproduction", description="The papers' claims put to the test.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="run studies and keep their numbers")
    run.add_argument("studies", nargs="*", metavar="STUDY")
    run.add_argument("--all", action="store_true", help="every study that has no results yet")
    run.add_argument("--again", action="store_true", help="compute claims again from reports that are there")
    run.add_argument("--data", required=True, help="folder of the data")
    run.add_argument("--work", required=True, help="folder for reports")
    images = verbs.add_parser("images", help="find the images that all nets get right")
    images.add_argument("--data", required=True, help="folder of the data")
    verbs.add_parser("list", help="studies, and whether they have results")
    verbs.add_parser("page", help="write docs/reproduction.md")
    given = parser.parse_args()
    if given.verb == "page":
        (HERE.parent / "reproduction.md").write_text(page(STUDIES.values(), results(), FIGURES), encoding="utf-8")
        draw(results(), HERE.parent / "images")
        return 0
    if given.verb == "images":
        places = common.find(Path(given.data), NETS)
        common.LIST.write_text("".join(f"{place}\n" for place in places), encoding="utf-8")
        return 0
    if given.verb == "list":
        done = results()
        for study in STUDIES.values():
            sys.stdout.write(f"{study.id:24} {'done' if study.id in done else '    '}  {study.what}\n")
        return 0
    ids = [i for i in STUDIES if not (RESULTS / f"{i}.json").exists()] if given.all else given.studies
    for wrong in [i for i in ids if i not in STUDIES]:
        parser.error(f"no study {wrong}; they are {', '.join(STUDIES)}")
    return max([_one(STUDIES[i], Path(given.data), Path(given.work), given.again) for i in ids], default=0)


def _one(study: Study, data: Path, work: Path, again: bool) -> int:
    tables, facts = {}, {}
    made = work / study.id
    made.mkdir(parents=True, exist_ok=True)
    if study.prepare:
        study.prepare(data, made)
    shared = work / "cifar10-common.npz"
    if any("{common}" in run.command for run in study.runs.values()):
        common.write(data, shared)
    for name, run in study.runs.items():
        out = made / name
        report = out / "report.json"
        if not report.exists() or not again:
            words = [
                sys.executable,
                "-m",
                "attrsens",
                *run.words(data=str(data), nets=str(NETS), made=str(made), common=str(shared)),
                "--out",
                str(out),
                "-q",
            ]
            words += [] if "--format" in words else ["--format", "csv"]
            began = time.monotonic()
            code = subprocess.run(words, check=False).returncode
            sys.stderr.write(f"{study.id}/{name}: exit {code}, {time.monotonic() - began:.0f} s\n")
            if code not in (0, 3):  # 3: some cells failed, and are left out
                return 1
        table = Table.read(report)
        tables[name] = table
        by = table.report["provenance"]
        facts[name] = {"command": run.command, "images": run.images, "passes": _passes(table.report)}
        facts[name] |= {"seconds": None if by["cached_cells"] else round(by["seconds"])}
        facts[name] |= {"failures": len(table.report["failures"]), "threads": by["threads"]}
        facts[name] |= {"versions": {k: by["versions"][k] for k in ("attrsens", "torch")}}
    found: dict[str, dict[str, Any]] = {}
    for claim in study.claims:
        found[claim.key] = {}
        for whose, measure in claim.evidence.items():
            try:
                estimate = measure(tables)
            except LookupError as error:
                sys.stderr.write(f"{study.id}: {claim.key}, {whose}: {error}\n")
                return 1
            if estimate is not None:
                found[claim.key][whose] = estimate.data()
    RESULTS.mkdir(exist_ok=True)
    kept: dict[str, Any] = {"runs": facts, "claims": found}
    if study.numbers:
        kept["numbers"] = {name: measure(tables).data() for name, measure in study.numbers.items()}
    text = json.dumps(kept, indent=1, ensure_ascii=False)
    (RESULTS / f"{study.id}.json").write_text(text + "\n", encoding="utf-8")
    return 0


def _passes(report: dict[str, Any]) -> dict[str, int]:
    """What maps and scores cost, each by itself; what was made, where that is more (searches of attacks)."""
    parts = [record["passes"] for record in report["records"]]
    parts += [score["passes"] for record in report["records"] for score in record["scores"].values()]
    made = report["provenance"]["passes_run"]
    return {kind: max(made[kind], sum(part[kind] for part in parts)) for kind in ("forward", "backward")}


if __name__ == "__main__":
    sys.exit(main())
