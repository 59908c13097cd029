"""The Python API and the engine beneath it: records, reuse, failures, plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import SmallNet, draw, small, uniform

import attrsens
from attrsens.engine.cell import parse_call
from attrsens.engine.plan import plan
from attrsens.engine.prepare import prepare
from attrsens.engine.verbs import Interrupted, execute
from attrsens.heatmaps import finish


def picture(seed: int = 0, side: int = 16) -> np.ndarray:
    return (uniform(side, side, 3, seed=seed) * 255).to(torch.uint8).numpy()


def test_arrays_pictures_and_files_give_the_same_map(tmp_path: Path) -> None:
    pixels = picture()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    given = [pixels, Image.fromarray(pixels), str(tmp_path / "a.png"), tmp_path / "a.png"]
    report = attrsens.explain(given, model=small(), method="sg:n=3", cache=False)
    first, *others = report.attributions
    assert len(others) == 3
    assert all(np.array_equal(first.map, a.map) for a in others), "draws follow the pixels, not the name"
    assert len({r.key for r in report.records}) == 1
    np.testing.assert_array_equal(first.input, pixels)


def test_a_record_says_what_its_map_is() -> None:
    f = small(classes=list("abcde"))
    report = attrsens.explain(picture(), model=f, method=["grad:sign=abs", "ig:steps=4"], target=["top1", "c", 2, "d"])
    logits = f.logits(torch.from_numpy(f.preprocess.apply(_image(picture())))[None])[0]
    top = int(logits.argmax())
    order = list(dict.fromkeys([top, 2, 3]))
    assert [(r.target.index, r.method.name) for r in report.records] == [(t, m) for t in order for m in ("grad", "ig")]
    for record, attribution in zip(report.records, report.attributions, strict=True):
        assert record.target.label == "abcde"[record.target.index] == attribution.label
        assert record.target.probability == pytest.approx(float(logits.softmax(0)[record.target.index]), rel=1e-5)
        assert record.target.rank == 1 + int((logits > logits[record.target.index]).sum())
        assert record.heatmap.min == float(attribution.map.min())
        assert record.heatmap.max == float(attribution.map.max())
        assert record.heatmap.shape == [16, 16]
        assert parse_call(record.method.expression).parameters == record.method.parameters
    assert report.records[0].heatmap.min >= 0
    assert report.records[0].passes.forward == 1
    assert report.records[1].passes.backward == 5
    assert report.records[1].notes["completeness_gap"] == report.attributions[1].notes["completeness_gap"]


def _image(pixels: np.ndarray):
    from attrsens.images import Image as Decoded

    return Decoded("x", pixels)


def test_several_models_go_image_by_image() -> None:
    other = attrsens.Classifier(SmallNet("inplace"), [0.2] * 3, [0.5] * 3, resize=8, crop=8, device="cpu", name="other")
    report = attrsens.explain([picture(0), picture(1)], model=[small(), other], method="grad")
    assert [r.model.name for r in report.records] == ["smallnet", "other"] * 2
    assert [r.heatmap.shape for r in report.records[:2]] == [[16, 16], [8, 8]]


def test_sign_and_reduction_are_applied_to_one_stored_result() -> None:
    f, pixels = small(), picture()
    first = attrsens.explain(pixels, model=f, method="sg:n=3,reduce=none")
    assert first.provenance.passes_run.forward == 4
    raw = first.attributions[0].map
    assert raw.shape == (3, 16, 16)
    calls = [f"sg:n=3,sign={s},reduce={r}" for s in ("signed", "abs") for r in ("mean", "sum", "max", "none")]
    again = attrsens.explain(pixels, model=f, method=calls)
    assert (again.provenance.passes_run.forward, again.provenance.passes_run.backward) == (0, 0)
    assert again.provenance.cached_cells == 8
    assert len({r.key for r in again.records}) == 8
    for record, attribution in zip(again.records, again.attributions, strict=True):
        p = record.method.parameters
        np.testing.assert_array_equal(attribution.map, finish(raw, p["sign"], p["reduce"]))


@pytest.mark.parametrize(
    "change", [{"precision": "bf16"}, {"fold": False}, {"preprocess": "mean=0.4,0.4,0.4"}, {"method": "sg:n=3,seed=1"}]
)
def test_what_changes_a_result_changes_its_key(change: dict[str, object], tmp_path: Path) -> None:
    pixels = picture(side=64)
    base = {"method": "sg:n=3", "preprocess": "resize=64,crop=64", "target": 5}
    keys = set()
    for options in (
        base,
        {**base, **change, "preprocess": f"resize=64,crop=64,{change.get('preprocess', 'squash=false')}"},
    ):
        (record,) = attrsens.explain(pixels, device="cpu", **options).records
        keys.add(record.key)
    assert len(keys) == 2


def test_batch_and_order_change_no_key_and_no_map_beyond_tolerance() -> None:
    images = [picture(i) for i in range(3)]
    base = attrsens.explain(images, model=small(), method="sg:n=5", cache=False)
    turned = attrsens.explain(images[::-1], model=small(batch=2), method="sg:n=5", cache=False)
    for a, b, x, y in zip(
        base.records, turned.records[::-1], base.attributions, turned.attributions[::-1], strict=True
    ):
        assert a.key == b.key
        np.testing.assert_allclose(x.map, y.map, rtol=1e-4, atol=1e-6 * np.abs(x.map).max())


def test_one_bad_image_stops_nothing() -> None:
    report = attrsens.explain([picture(), np.zeros((4, 4, 3)), picture(1)], model=small(), method="grad")
    assert len(report.records) == 2
    (failure,) = report.failures
    assert (failure.image, failure.stage) == ("array-1", "decode")


def test_a_cell_that_is_not_finite_is_a_failure_of_that_cell() -> None:
    class Steep(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt((x.flatten(1)[:, :5] - x.flatten(1)[:, :5]).abs())  # gradient not finite

    f = attrsens.Classifier(Steep("reused"), [0.0] * 3, [1.0] * 3, crop=16, device="cpu", name="steep")
    report = attrsens.explain(picture(), model=f, method=["grad", "sp:stride=8,patch_size=8"])
    (failure,) = report.failures
    assert failure.stage == "compute"
    assert failure.message == "grad gave a map that is not finite"
    assert [r.method.name for r in report.records] == ["sp"]


def test_true_targets_need_labels() -> None:
    report = attrsens.explain(picture(), model=small(), target="true")
    assert report.records == []
    assert report.failures[0].stage == "label"


def test_the_plan_is_what_the_run_then_does() -> None:
    prepared = prepare([picture(0), picture(1)], model=small(), method=["sg:n=7", "sp:patch_size=4,stride=4"])
    found = plan(prepared.request, prepared.store)
    assert (found.images, found.models, found.cells, found.cached) == (2, 1, 4, 0)
    report = execute(prepared)
    ran = report.provenance.passes_run
    assert (found.forward, found.backward) == (ran.forward, ran.backward) == (2 * (1 + 7 + 17), 14)
    after = plan(prepared.request, prepared.store)
    assert (after.cached, after.forward, after.backward) == (4, 0, 0)


def test_the_plan_computes_nothing_it_could_keep(tmp_path: Path) -> None:
    prepared = prepare(picture(), model=small(), method="sg:n=7", cache_dir=tmp_path / "store")
    plan(prepared.request, prepared.store)
    assert not (tmp_path / "store").exists()


def test_an_interrupt_carries_what_was_finished() -> None:
    prepared = prepare([picture(i) for i in range(3)], model=small(), method="grad")
    seen = []

    def sink(part: list) -> None:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.extend(part)

    with pytest.raises(Interrupted) as stopped:
        execute(prepared, sink=sink)
    assert stopped.value.report.provenance.interrupted
    assert len(stopped.value.report.records) == len(seen) == 2


def test_an_interrupt_in_the_middle_of_an_image_keeps_its_finished_maps() -> None:
    class Slow(SmallNet):
        passes = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Slow.passes += 1
            if Slow.passes == 3:
                raise KeyboardInterrupt
            return super().forward(x)

    f = attrsens.Classifier(Slow("reused"), [0.0] * 3, [1.0] * 3, crop=16, device="cpu", fold=False)
    with pytest.raises(Interrupted) as stopped:
        execute(prepare([picture(), picture(1)], model=f, method=["grad", "gi"]))
    report = stopped.value.report
    assert [r.method.name for r in report.records] == ["grad"]
    assert len(report.attributions) == 1


def test_mistakes_are_found_before_any_pass() -> None:
    f = small()
    for options, message in (
        ({"target": 9}, "target 9 is out of range: classes are 0 to 4"),
        ({"method": "sp:patch_size=17"}, "patch_size 17 is larger than the image, 16 x 16"),
        ({"method": "ig:baseline=image"}, "needs baseline_image=FILE"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"batch": "x"}, "batch must be auto or an integer"),
        ({"precision": "fp16"}, "precision must be fp32 or bf16"),
        ({"nonsense": 3}, "nonsense"),
    ):
        with pytest.raises(attrsens.AttrsensError, match=message) as error:
            attrsens.explain([picture(), "sample:coffee"], model=f, **options)
        assert error.value.exit_code == 2
    assert f.passes.forward <= 1, "at most the pass that counts the classes"


def test_a_damaged_store_heals(tmp_path: Path) -> None:
    f, pixels = small(), picture()
    options = {"model": f, "method": "sg:n=3", "cache_dir": tmp_path}
    first = attrsens.explain(pixels, **options)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2
    for path in files:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    again = attrsens.explain(pixels, **options)
    assert again.provenance.damaged_cells == 2
    assert again.provenance.passes_run.forward == 4
    np.testing.assert_array_equal(again.attributions[0].map, first.attributions[0].map)
    third = attrsens.explain(pixels, **options)
    assert (third.provenance.passes_run.forward, third.provenance.damaged_cells) == (0, 0)


def test_noise_of_a_perturbed_image_is_that_of_the_image() -> None:
    """An Explainer keeps its draws when the pixels move: maps of neighbours differ by the image alone."""
    f = small()
    spec = attrsens.METHODS["sg"]
    explainer = attrsens.Explainer(f, spec, 0, spec.complete({"n": 4}), image="one")
    x = uniform(3, 16, 16)
    moved = x + 1e-6 * draw(3, 16, 16)
    change = float((explainer(moved) - explainer(x)).norm() / explainer(x).norm())
    fresh = attrsens.Explainer(f, spec, 0, spec.complete({"n": 4}), image="two")
    assert change < 0.05 < float((fresh(x) - explainer(x)).norm() / explainer(x).norm())


def test_magnitudes_inside_the_average_are_a_result_of_their_own() -> None:
    """sign=abs acts on the stored map; sign=abs_sample acts on every gradient and is never served from there."""
    f, pixels = small(), picture()
    stored = attrsens.explain(pixels, model=f, method="sg:n=3,sign=signed,reduce=none").attributions[0].map
    inside = attrsens.explain(pixels, model=f, method="sg:n=3,sign=abs_sample,reduce=none")
    assert inside.provenance.cached_cells == 0
    assert inside.records[0].passes.backward == 3
    assert float(np.abs(inside.attributions[0].map - np.abs(stored)).max()) > 1e-3 * float(np.abs(stored).max())
