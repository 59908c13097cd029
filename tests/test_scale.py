"""Many images on one machine: memory that stays, pictures that are decoded ahead, cells that fail, and Ctrl-C."""

from __future__ import annotations

import functools
import json
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from toys import SmallNet, small

import attrsens
from attrsens.engine.ahead import Reading, windows
from attrsens.engine.inputs import Source
from attrsens.engine.prepare import Prepared, prepare
from attrsens.engine.prepare_sweep import prepare_sweep
from attrsens.engine.report import Report, json_schema, to_json
from attrsens.engine.verbs import Interrupted, execute
from attrsens.errors import InputError
from attrsens.images import Image as Picture


def pixels(i: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)


def pictures(count: int) -> list[np.ndarray]:
    return [pixels(i) for i in range(count)]


def body(report: Report) -> dict[str, Any]:
    data = json.loads(to_json(report))
    Draft202012Validator(json_schema()).validate(data)
    return {k: v for k, v in data.items() if k != "provenance"}


# -- memory ----------------------------------------------------------------------------------------------------------


def held(prepared: Prepared, counts: tuple[int, ...]) -> list[int]:
    """Bytes that Python and numpy hold after so many images."""
    found, seen = [], 0

    def sink(part: list[Any]) -> None:
        nonlocal seen
        seen += 1
        if seen in counts:
            found.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        execute(prepared, sink=sink)
    finally:
        tracemalloc.stop()
    return found


def noise(count: int, side: int = 64) -> list[Source]:
    """Pictures that are made when they are read, 12 kB each, so that keeping them, or a map of 16 kB, would show."""

    def load(i: int) -> Picture:
        return Picture(f"noise {i}", pixels(i, side))

    return [Source(f"noise {i}", lambda i=i: load(i)) for i in range(count)]  # type: ignore[misc]


@pytest.mark.parametrize("verb", ["explain", "sweep"])
def test_what_stays_in_memory_of_an_image_is_its_records(verb: str) -> None:
    f = attrsens.Classifier(SmallNet("reused"), [0.45] * 3, [0.25] * 3, crop=64, device="cpu")
    made: dict[str, Callable[[], Prepared]] = {
        "explain": lambda: prepare(pixels(0, 64), model=f, method="grad", cache=False),
        "sweep": lambda: prepare_sweep(
            pixels(0, 64), model=f, method="sg", param="n", values="1,2", metrics="cosine", cache=False
        ),
    }
    prepared = made[verb]()
    prepared = replace(prepared, request=replace(prepared.request, sources=noise(100)))
    before, after = held(prepared, (30, 100))
    records = {"explain": 1, "sweep": 2}[verb]
    grown = (after - before) / 70 / records
    assert 2000 < grown < 9000, f"{grown:.0f} bytes a record"  # its sketch alone has 2.1 kB


# -- decoding ahead ----------------------------------------------------------------------------------------------------


def test_the_next_picture_is_read_while_the_network_looks_at_this_one() -> None:
    began = [threading.Event() for _ in range(3)]
    looked: list[bool] = []

    def load(i: int) -> Picture:
        began[i].set()
        return Picture(f"p{i}", pixels(i))

    class Watching(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if watching:
                looked.append(began[len(looked) + 1].wait(30) if len(looked) < 2 else True)
            return super().forward(x)

    watching: list[int] = []
    f = attrsens.Classifier(Watching("reused"), [0.45] * 3, [0.25] * 3, crop=16, device="cpu", fold=False)
    prepared = prepare(pictures(1), model=f, method="constant", cache=False)
    watching.append(1)
    sources = [Source(f"p{i}", lambda i=i: load(i)) for i in range(3)]  # type: ignore[misc]
    object.__setattr__(prepared.request, "sources", sources)
    report = execute(prepared)
    assert looked == [True] * 3, "the prediction of one picture waits for the reading of the next"
    assert [r.image.path for r in report.records] == ["p0", "p1", "p2"]


def test_one_window_is_read_ahead_and_no_more() -> None:
    read: list[int] = []

    def load(i: int) -> Picture:
        read.append(i)
        return Picture(f"p{i}", pixels(i))

    sources = [Source(f"p{i}", lambda i=i: load(i)) for i in range(10)]  # type: ignore[misc]
    seen = 0
    for window, loaded in windows(sources, 3):
        assert [s.name for s in window] == [one.name for one in loaded if isinstance(one, Picture)]
        seen += len(window)
        wait_for(lambda: len(read) == min(seen + 3, 10))  # noqa: B023
        time.sleep(0.02)
        assert read == list(range(min(seen + 3, 10)))
    assert seen == 10
    assert list(windows([], 3)) == []


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_picture_that_fails_in_any_way_does_not_stop_the_others() -> None:
    def load(i: int) -> Picture:
        if i == 1:
            raise InputError("p1: no picture")
        if i == 2:
            raise ZeroDivisionError("a bug\nin a decoder")
        return Picture(f"p{i}", pixels(i))

    prepared = prepare(pictures(1), model=small(), method="grad", cache=False)
    sources = [Source(f"p{i}", lambda i=i: load(i)) for i in range(4)]  # type: ignore[misc]
    object.__setattr__(prepared.request, "sources", sources)
    report = execute(prepared)
    assert [r.image.path for r in report.records] == ["p0", "p3"]
    assert [(f.image, f.stage, f.message) for f in report.failures] == [
        ("p1", "decode", "p1: no picture"),
        ("p2", "decode", "p2: internal error: ZeroDivisionError: a bug"),
    ]
    body(report)


def test_what_ends_the_process_goes_through_the_reading_thread() -> None:
    def load() -> Picture:
        raise SystemExit(7)

    with pytest.raises(SystemExit):
        Reading([Source("p", load)]).result()


def test_ctrl_c_does_not_wait_for_a_disk_that_hangs() -> None:
    hangs, free = threading.Event(), threading.Event()

    def load(i: int) -> Picture:
        if i == 1:
            hangs.set()
            assert free.wait(60)
        return Picture(f"p{i}", pixels(i))

    sources = [Source(f"p{i}", lambda i=i: load(i)) for i in range(3)]  # type: ignore[misc]
    prepared = prepare(pictures(1), model=small(), method="grad", cache=False)
    object.__setattr__(prepared.request, "sources", sources)

    def sink(part: list[Any]) -> None:
        assert hangs.wait(30)
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(Interrupted) as stopped:
        execute(prepared, sink=sink)
    assert time.monotonic() - begin < 30
    assert stopped.value.report.provenance.interrupted
    (thread,) = (t for t in threading.enumerate() if t.name == "attrsens-reading")
    assert thread.daemon, "nor does the end of the process"
    free.set()
    thread.join(30)


# -- failures ----------------------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, name: str, how: Callable[[int, Any], Any]) -> None:
    """Have one setting of sg fail, alone and in company: what it gives for n = 4 is what `how` makes of it."""
    spec = attrsens.METHODS[name]
    alone, across = spec.function, spec.traits["settings"]

    @functools.wraps(alone)
    def function(f: Any, *given: Any, **parameters: Any) -> Any:
        found = alone(f, *given, **parameters)
        return found if f.dry else how(parameters["n"], found)

    def settings(f: Any, x: Any, targets: Any, points: Any) -> Any:
        for point, found in zip(points, across(f, x, targets, points), strict=True):
            yield found if f.dry else how(point["n"], found)

    object.__setattr__(spec, "function", function)
    monkeypatch.setitem(spec.traits, "settings", settings)
    undo.append(lambda: object.__setattr__(spec, "function", alone))


undo: list[Callable[[], None]] = []


@pytest.fixture(autouse=True)
def _undo() -> Any:
    yield
    while undo:
        undo.pop()()


def nan(n: int, found: Any) -> Any:
    return found * float("nan") if n == 4 else found


def bug(n: int, found: Any) -> Any:
    if n == 4:
        raise RuntimeError("a bug of this setting")
    return found


@pytest.mark.parametrize(
    ("how", "message"),
    [(nan, "sg gave a map that is not finite"), (bug, "internal error: RuntimeError: a bug of this setting")],
    ids=["nan", "bug"],
)
def test_a_setting_that_fails_in_a_shared_run_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, how: Any, message: str
) -> None:
    given: dict[str, Any] = {"model": [small(), small("functional")], "method": "sg", "param": "n", "metrics": "cosine"}
    given |= {"values": "2,4,8", "draws": "nested", "cache": False}
    whole = attrsens.sweep(pictures(2), **given)
    failing(monkeypatch, "sg", how)
    report = attrsens.sweep(pictures(2), **given)
    assert [(f.stage, f.message) for f in report.failures] == [("compute", message)] * 4
    assert all("n=4," in str(f.method) for f in report.failures)
    left = [r for r in whole.records if r.method.parameters["n"] != 4]
    assert [(r.image.sha256, r.model.name, r.key) for r in report.records] == [
        (r.image.sha256, r.model.name, r.key) for r in left
    ]
    maps = {r.key: a.map for r, a in zip(whole.records, whole.attributions, strict=True)}
    for record, attribution in zip(report.records, report.attributions, strict=True):
        np.testing.assert_allclose(attribution.map, maps[record.key], rtol=1e-4, atol=1e-6)
    body(report)


def test_a_bug_in_a_score_stops_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    from attrsens.engine.judge import Judge

    score = Judge.write

    def fail(self: Judge, *given: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        score(self, *given)

    monkeypatch.setattr(Judge, "write", fail)
    report = attrsens.score(pictures(3), model=small(), method="grad", metrics="gini", cache=False)
    assert [bool(r.scores) for r in report.records] == [True, False, True]
    assert [(f.image, f.stage, f.message) for f in report.failures] == [
        ("array-1", "score", "internal error: ZeroDivisionError")
    ]


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


class Interrupting(SmallNet):
    """Ctrl-C at the so-many-th batch, once."""

    at = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.at:
            self.at -= 1
            if not self.at:
                raise KeyboardInterrupt
        return super().forward(x)


@pytest.mark.parametrize("at", range(1, 16))
def test_ctrl_c_at_any_batch_of_a_sweep_keeps_what_is_finished_and_the_next_run_goes_on(at: int, tmp_path: Any) -> None:
    net = Interrupting("reused")
    f = attrsens.Classifier(
        net, [0.45] * 3, [0.25] * 3, crop=16, device="cpu", fold=False, batch=2, id="toy@0", copy_module=False
    )
    given: dict[str, Any] = {"model": f, "method": "sg", "param": "n", "values": "2,4,6", "draws": "nested"}
    given |= {"metrics": "cosine", "replicates": 2}
    whole = attrsens.sweep(pictures(2), cache=False, **given)
    prepared = prepare_sweep(pictures(2), cache_dir=tmp_path, **given)
    net.at = at  # of two images: a prediction, and two runs of three batches, a seed each
    if at > 14:
        execute(prepared)
        return
    with pytest.raises(Interrupted) as stopped:
        execute(prepared)
    net.at = 0
    report = stopped.value.report
    assert report.provenance.interrupted
    assert report.failures == []
    assert len(report.attributions) == len(report.records)
    body(report)
    image, batch = divmod(at - 1, 7)  # finished before: batches 1 to `batch` of this image
    done = [0, 0, 1, 2, 3, 4, 5][batch]  # prediction; n = 2 after one batch of its run, n = 4 after two, ...
    assert len(report.records) == 6 * image + done
    assert {r.key for r in report.records} < {r.key for r in whole.records}
    resumed = attrsens.sweep(pictures(2), cache_dir=tmp_path, **given)
    assert not resumed.provenance.interrupted
    assert body(resumed) == body(whole)
    finished = 2 * image + (batch - 1) // 3 if batch else 2 * image
    assert resumed.provenance.passes_run.backward == (4 - finished) * 6


def test_ctrl_c_while_the_rows_are_worked_out_leaves_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("attrsens.engine.sweep.findings.findings", stop)
    given: dict[str, Any] = {"model": small(), "method": "sg", "param": "n", "values": "1,2", "metrics": "cosine"}
    with pytest.raises(Interrupted) as stopped:
        attrsens.sweep(pictures(2), cache=False, **given)
    report = stopped.value.report
    assert report.provenance.interrupted
    assert len(report.records) == 4
    body(report)
