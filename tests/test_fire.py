"""Runs that are killed, interrupted, doubled, or robbed of their disk: what was finished stays, and nothing differs."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from nursery import build
from PIL import Image
from safetensors.torch import save_file

from attrsens.engine.report import json_schema
from attrsens.engine.store import Store

IMAGES = 3
SETTINGS = (2, 4, 8)
HERE = Path(__file__).parent


@dataclass
class Place:
    """Pictures, a network, and the sweep over them."""

    folder: Path
    method: tuple[str, ...] = ("--method", "sg", "--param", "n", "--values", "2,4,8", "--draws", "nested")
    more: tuple[str, ...] = ("--format", "npy")

    def sweep(self, out: str, cache: str, *more: object) -> list[str]:
        """One run gives all settings of an image: a sharing group."""
        net = ["--model", self.folder / "toynet.safetensors", "--arch", "py:nursery:build", "--device", "cpu"]
        shape = ["--preprocess", "mean=0.5,0.5,0.5,std=0.25,0.25,0.25", "--batch", "2", "--metrics", "cosine,gini"]
        where = ["--out", self.folder / out, "--cache-dir", self.folder / cache]
        words = ["sweep", self.folder / "images", *net, *shape, *self.method, *self.more, *where, *more]
        return [str(word) for word in words]

    def store(self, cache: str) -> Store:
        return Store(self.folder / cache)

    def cells(self, cache: str) -> dict[Path, tuple[int, int]]:
        """Every committed file, and what would tell that it was written again."""
        files = sorted((self.folder / cache).glob("v1/??/[!.]*.safetensors"))
        return {f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in files}

    def finished(self, cache: str) -> set[str]:
        """Names of the images whose group is whole."""
        store = self.store(cache)
        found = [entry.data for key in store.keys() if (entry := store.get(key)) is not None]
        maps = Counter(data["image"] for data in found if data["method"] and "score" not in data)
        assert store.damaged == 0
        assert set(maps.values()) <= set(range(len(SETTINGS) + 1))
        return {name for name, count in maps.items() if count == len(SETTINGS)}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def make_place(folder: Path, images: int = IMAGES) -> Place:
    (folder / "images").mkdir()
    rng = np.random.default_rng(3)
    for i in range(images):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
    net, draw = build(), torch.Generator().manual_seed(4)
    state = {name: torch.randn(value.shape, generator=draw) for name, value in net.state_dict().items()}
    save_file(state, folder / "toynet.safetensors")
    return Place(folder)


def results(out: Path) -> dict[str, bytes]:
    """Every file below, of the report what stands above `provenance`."""
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    assert found.pop("report.html")  # it tells the provenance too
    found["report.json"] = found["report.json"].partition(b'\n "provenance": {')[0]
    return found


def report_in(out: Path) -> dict[str, Any]:
    data = json.loads((out / "report.json").read_bytes())
    Draft202012Validator(json_schema()).validate(data)
    return data


class Nursery:
    """Forks a child for every command line; see nursery.py."""

    def __init__(self, log: Path) -> None:
        paths = [str(HERE.parent), str(HERE)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "ATTRSENS_PASSES": str(log)}
        self.log = log
        self.errors = log.with_suffix(".err").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment | {"OMP_NUM_THREADS": "1"},
            text=True,
        )

    def start(self, words: list[str]) -> int:
        """The process id."""
        assert self.process.stdin
        self.log.write_text("")
        print(json.dumps(words), file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> int:
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def run(self, words: list[str]) -> int:
        """The exit code."""
        self.start(words)
        return self.answer()

    def batches(self) -> list[str]:
        """The image of every batch so far of the child that runs, "" for predictions."""
        return [line.partition(" ")[2] for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
        self.errors.close()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path / "passes.log")
    yield nursery
    nursery.close()


@dataclass
class Tally:
    """What came of many kills."""

    kills: int = 0
    runs: int = 0
    campaigns: int = 0
    again: int = 0  # finished groups that were computed again
    phases: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


def under_fire(place: Place, nursery: Nursery, kills: int, seed: int) -> Tally:
    """Kill runs at random moments, some in time and some in passes, start them again until they finish, and begin anew
    with an empty cache until there were enough."""
    rng = np.random.default_rng(seed)
    place.more = ("--format", "png,npy")
    assert nursery.run(place.sweep("whole", "whole.cache")) == 0
    whole, total = results(place.folder / "whole"), len(nursery.batches())
    begin = time.monotonic()
    assert nursery.run(place.sweep("whole", "timed.cache")) == 0
    span = time.monotonic() - begin
    hashes = {r["image"]["sha256"]: r["image"]["path"] for r in report_in(place.folder / "whole")["records"]}
    tally = Tally()
    while tally.kills < kills:
        tally.campaigns += 1
        out, cache = f"out{tally.campaigns}", f"cache{tally.campaigns}"
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            before, groups = place.cells(cache), place.finished(cache)
            child = nursery.start(place.sweep(out, cache))
            tally.runs += 1
            left = total * (IMAGES - len(groups)) // IMAGES  # batches, about
            if tally.kills < kills and (left or rng.random() < 0.4):
                until = time.monotonic() + float(rng.uniform(0, span))
                wanted = int(rng.integers(left)) if left and rng.random() < 0.7 else total + 1
                while time.monotonic() < until and len(nursery.batches()) < wanted:
                    time.sleep(0.002)
                with suppress(ProcessLookupError):  # it has finished
                    os.kill(child, signal.SIGKILL)
            code = nursery.answer()
            assert code in (0, -signal.SIGKILL), nursery.errors.name
            seen = {hashes[image] for image in nursery.batches() if image}
            tally.again += len(seen & groups)
            after = place.cells(cache)
            tally.differences += [f"{cache}: {f.name} was written again" for f in before if after.get(f) != before[f]]
            if (place.folder / out / "report.json").exists():
                report_in(place.folder / out)  # whole or not there
            if code:
                tally.kills += 1
                there = len(place.finished(cache))
                began = "writing" if there == IMAGES else "computing" if nursery.batches() or there else "start"
                tally.phases[began] += 1
        found = results(place.folder / out)
        if found != whole:
            names = {n for n in found.keys() | whole.keys() if found.get(n) != whole.get(n)}
            tally.differences.append(f"{out}: {sorted(names)}")
        if (place.folder / cache / "v1" / "damaged").exists():
            tally.differences.append(f"{cache}: damage")
        shutil.rmtree(place.folder / out)
    return tally


def test_a_sweep_that_is_killed_at_random_moments_ends_with_the_same_bytes(place: Place, nursery: Nursery) -> None:
    tally = under_fire(place, nursery, 15, 5)
    assert tally.differences == []
    assert tally.again == 0, "a finished sharing group was computed again"
    assert tally.kills == 15
    assert len(tally.phases) >= 2, tally.phases
    assert len(results(place.folder / "whole")) > IMAGES * len(SETTINGS) * 2


@pytest.mark.parametrize("method", ["sg", "mp:steps=3,init=ones,mask_side=4"])
def test_two_processes_share_a_study(place: Place, method: str) -> None:
    if method != "sg":
        place.method = ("--method", method, "--param", "blur_radius", "--values", "1,2,3")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    command = [sys.executable, "-m", "attrsens"]
    children = [
        subprocess.Popen(
            [*command, *place.sweep(out, "cache")], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for out in ("a", "b")
    ]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        assert b"cache:" not in errors
    assert results(place.folder / "a") == results(place.folder / "b")
    cells = len(place.cells("cache"))
    assert cells == IMAGES * (len(SETTINGS) + 1)
    assert place.store("cache").verify() == (cells, 0)
    assert list((place.folder / "cache" / "v1").rglob(".*")) == []


# -- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verified", [True, False], ids=["after verify", "found by the run"])
def test_a_flipped_byte_is_found_and_its_group_computed_again(place: Place, run_cli: Any, verified: bool) -> None:
    assert run_cli(*place.sweep("a", "cache"))[0] == 0
    spent = report_in(place.folder / "a")["provenance"]["passes_run"]
    maps = [f for f in place.cells("cache") if place.store("cache").get(f.stem).data["method"]]  # type: ignore[union-attr]
    path = maps[4]
    data = bytearray(path.read_bytes())
    data[-100] ^= 16
    path.write_bytes(data)
    if verified:
        code, said, errors = run_cli("cache", "verify", "--cache-dir", place.folder / "cache")
        assert (code, said) == (0, f"{IMAGES * 4 - 1} sound, 1 damaged\n")
        assert errors == f"attrsens: cache: {path} is damaged (hash differs); set aside, the cell is computed again\n"
        assert run_cli("cache", "verify", "--cache-dir", place.folder / "cache")[1].endswith(" sound, 0 damaged\n")
    code, _, errors = run_cli(*place.sweep("b", "cache"))
    assert code == 0
    assert errors.count("is damaged (hash differs)") == int(not verified)
    provenance = report_in(place.folder / "b")["provenance"]
    assert provenance["damaged_cells"] == int(not verified)
    assert provenance["passes_run"] == {"forward": max(SETTINGS), "backward": max(SETTINGS)}, "its run alone, and whole"
    assert spent["backward"] == IMAGES * max(SETTINGS)
    assert results(place.folder / "a") == results(place.folder / "b")


# -- disks -----------------------------------------------------------------------------------------------------------


def refuse_below(monkeypatch: pytest.MonkeyPatch, folder: Path, code: int, after: int = 0) -> None:
    """The operating system answers every attempt to make or write a file below with an error, after the first few."""
    opened, made, count = Path.open, Path.mkdir, [0]

    def check(path: Path) -> None:
        if path.is_relative_to(folder):
            count[0] += 1
            if count[0] > after:
                raise OSError(code, os.strerror(code), str(path))

    def open_(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wxa+"):
            check(self)
        return opened(self, mode, *arguments, **options)

    def mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        if not self.exists():
            check(self)
        made(self, *arguments, **options)

    def touch(self: Path, *_: Any, **__: Any) -> None:
        check(self)
        opened(self, "wb").close()

    monkeypatch.setattr(Path, "open", open_)
    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "touch", touch)


def problems(errors: str) -> list[str]:
    """What stderr says besides that code is run and what came of it."""
    assert "Traceback" not in errors
    return [
        line
        for line in errors.splitlines()
        if not line.startswith("attrsens: running your own") and "maps, " not in line
    ]


@pytest.mark.parametrize(("code", "after"), [(errno.EROFS, 0), (errno.ENOSPC, 7)])
def test_a_cache_that_cannot_be_written_is_one_line_and_loses_no_result(
    place: Place, run_cli: Any, monkeypatch: pytest.MonkeyPatch, code: int, after: int
) -> None:
    assert run_cli(*place.sweep("a", "cache.a"))[0] == 0
    refuse_below(monkeypatch, place.folder / "cache.b", code, after)
    exit_code, _, errors = run_cli(*place.sweep("b", "cache.b"))
    assert exit_code == 0
    assert problems(errors) == [
        f"attrsens: cache: {place.folder / 'cache.b' / 'v1'} cannot be written ({os.strerror(code)}); "
        "results are not kept; use --cache-dir DIR or --no-cache"
    ]
    assert results(place.folder / "a") == results(place.folder / "b")
    monkeypatch.undo()
    kept = len(place.cells("cache.b"))
    assert (kept > 0) is (after > 0)
    assert place.store("cache.b").verify() == (kept, 0)
    assert run_cli(*place.sweep("b", "cache.b"))[0] == 0
    assert results(place.folder / "a") == results(place.folder / "b")


def test_an_output_folder_that_is_read_only_is_told_before_any_work(
    place: Place, run_cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_below(monkeypatch, place.folder / "b", errno.EROFS)
    code, said, errors = run_cli(*place.sweep("b", "cache"))
    assert (code, said) == (2, "")
    (line,) = problems(errors)
    assert (
        line == f"attrsens: out: {place.folder / 'b'} cannot be written (Read-only file system); choose another --out"
    )
    assert all(not e.data["method"] for k in place.store("cache").keys() if (e := place.store("cache").get(k)))


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "no cache"])
def test_a_full_disk_below_the_output_folder_is_one_line_and_the_next_run_goes_on(
    place: Place, run_cli: Any, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    refuse_below(monkeypatch, place.folder / "b", errno.ENOSPC, 7)
    exit_code, _, errors = run_cli(*place.sweep("b", "cache", *([] if cached else ["--no-cache"])))
    assert exit_code == 4
    (line,) = problems(errors)
    assert line.startswith(f"attrsens: {place.folder / 'b'}/")
    rest = "what is finished is in the cache, so the next run goes on from there" if cached else "nothing is kept"
    assert line.endswith(f" cannot be written (No space left on device); make room or choose another --out; {rest}")
    monkeypatch.undo()
    assert list((place.folder / "b").rglob(".*")) == [], "nothing half-written"
    kept = len(place.finished("cache"))
    assert bool(kept) is cached
    assert run_cli(*place.sweep("b", "cache"))[0] == 0
    assert report_in(place.folder / "b")["provenance"]["passes_run"]["backward"] == (IMAGES - kept) * max(SETTINGS)
    assert run_cli(*place.sweep("a", "other"))[0] == 0
    assert results(place.folder / "a") == results(place.folder / "b")


def test_a_limit_of_the_system_on_the_size_of_files(place: Place) -> None:
    """No part of the program is replaced here: maps fit, pictures do not, and the report tells of none."""
    place.more = ("--format", "png")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    words = [sys.executable, "-m", "attrsens", *place.sweep("a", "cache"), "--format", "png"]
    done = subprocess.run(words, env=environment, preexec_fn=limit, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4
    (line,) = problems(done.stderr)
    assert line.startswith(f"attrsens: {place.folder / 'a'}/heatmaps/0.toynet.sg.")
    assert "cannot be written (File too large); make room or choose another --out; what is finished" in line
    assert [p for p in (place.folder / "a").rglob("*") if p.name.startswith(".") or p.suffix == ".png"] == []
    assert place.store("cache").verify() == (4, 0)
    assert report_in(place.folder / "a")["provenance"]["interrupted"] is True


def vanish(monkeypatch: pytest.MonkeyPatch, folder: Path, at: int) -> None:
    """The folder is removed when the network looks at something for the so-many-th time."""
    import nursery

    forward, count = nursery.Toy.forward, [0]

    def then(self: Any, x: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        if count[0] == at:
            shutil.rmtree(folder)
        return forward(self, x)

    monkeypatch.setattr("nursery.Toy.forward", then)


def test_a_cache_that_vanishes_is_begun_anew(place: Place, run_cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cli(*place.sweep("a", "cache.a"))[0] == 0
    vanish(monkeypatch, place.folder / "cache.b", 10)
    code, _, errors = run_cli(*place.sweep("b", "cache.b"))
    assert (code, problems(errors)) == (0, [])
    assert results(place.folder / "a") == results(place.folder / "b")
    kept = len(place.cells("cache.b"))
    assert 0 < kept < len(place.cells("cache.a"))
    assert place.store("cache.b").verify() == (kept, 0)


def test_a_cache_in_whose_place_a_file_lies_is_one_line(place: Place, run_cli: Any) -> None:
    (place.folder / "cache").write_text("mine")
    code, _, errors = run_cli(*place.sweep("b", "cache"))
    assert code == 0
    (line,) = problems(errors)
    assert line.startswith(f"attrsens: cache: {place.folder / 'cache' / 'v1'} cannot be written (")
    assert (place.folder / "cache").read_text() == "mine"
    assert len(report_in(place.folder / "b")["records"]) == IMAGES * len(SETTINGS)


def test_an_output_folder_that_vanishes_is_one_line_and_the_next_run_goes_on(
    place: Place, run_cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    vanish(monkeypatch, place.folder / "b", 10)
    code, _, errors = run_cli(*place.sweep("b", "cache"))
    assert code == 4
    (line,) = problems(errors)
    assert line.startswith(f"attrsens: {place.folder / 'b'}/heatmaps/")
    assert "cannot be written (No such file or directory); make room or choose another --out; what is finished" in line
    kept = len(place.finished("cache"))
    assert kept > 0
    assert run_cli(*place.sweep("b", "cache"))[0] == 0
    assert report_in(place.folder / "b")["provenance"]["passes_run"]["backward"] == (IMAGES - kept) * max(SETTINGS)
    assert run_cli(*place.sweep("a", "other"))[0] == 0
    assert results(place.folder / "a") == results(place.folder / "b")


def test_temporary_files_of_a_run_that_was_killed_go_and_those_of_a_living_one_stay(place: Place, run_cli: Any) -> None:
    import socket

    assert run_cli(*place.sweep("a", "cache"))[0] == 0
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    host = socket.gethostname()
    dead = [place.folder / "a" / p / f".attrsens-{host}-{child.pid}-{'0' * 32}" for p in ("", "heatmaps", "figures")]
    living = place.folder / "a" / f".attrsens-{host}-{os.getppid()}-{'1' * 32}"
    (place.folder / "a" / "figures").mkdir(exist_ok=True)
    for path in (*dead, living):
        path.write_bytes(b"half")
    assert run_cli(*place.sweep("a", "cache"))[0] == 0
    assert [p.exists() for p in (*dead, living)] == [False, False, False, True]


if __name__ == "__main__":  # python tests/test_fire.py KILLS SEED
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        nest = Nursery(Path(name) / "passes.log")
        print(under_fire(make_place(Path(name)), nest, int(sys.argv[1]), int(sys.argv[2])))  # noqa: T201
        nest.close()
