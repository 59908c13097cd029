"""Searches and optimisers over several images: one batch of fixed shape, the same results whatever the company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import SmallNet, uniform

import attrsens
from attrsens import METHODS
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import cell_of, explainer
from attrsens.engine.prepare import prepare
from attrsens.engine.run import Request
from attrsens.engine.together import width_of
from attrsens.engine.verbs import Interrupted, execute
from attrsens.explainer import raw_together

CALLS = ["mp:steps=4,jitter=2", "bsm:search_steps=3,doublings=0,bisect=2", "big:steps=3,search_steps=3,doublings=0"]


def pictures(count: int, side: int = 16) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def classifier(watch: list[int] | None = None, crop: int | None = 16, name: str = "lively@0") -> attrsens.Classifier:
    """A small network that gives its images several classes, and tells `watch` the size of every batch."""
    net = SmallNet("functional").eval()
    with torch.no_grad():
        net.fc.bias.sub_(net((uniform(50, 3, 16, 16, seed=77) - 0.45) / 0.25).mean(0))
        for p in net.fc.parameters():
            p.mul_(20)
    f = attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, crop=crop, device="cpu", id=name)
    if watch is not None:
        f.network.register_forward_pre_hook(lambda _, inputs: watch.append(len(inputs[0])))
    return f


def test_every_method_with_the_trait_is_tried_here() -> None:
    assert {c.partition(":")[0] for c in CALLS} == {n for n in METHODS if "together" in METHODS[n].traits}


@pytest.mark.parametrize("call", CALLS)
def test_a_result_does_not_depend_on_its_company(call: str) -> None:
    f, parsed = classifier(), parse_call(call)
    images = [torch.from_numpy(p).permute(2, 0, 1).float() / 255 for p in pictures(5)]
    bound = [explainer(f, parsed, i % 2, f"image {i}") for i in range(5)]
    rows, made = raw_together([([one], image) for one, image in zip(bound, images, strict=True)], 3)
    whole = [raw for (raw,) in rows]
    assert len(whole) == 5
    single = bound[0].raw(images[0]).passes
    disc = single.forward - single.backward if call.startswith("mp") else 0  # a copy shares that of its original
    assert (made.forward, made.backward) == (6 * single.forward - disc, 6 * single.backward), "two batches of three"
    assert all(r.passes == single for r in whole)
    for i in (0, 4):
        ((alone,),), _ = raw_together([([bound[i]], images[i])], 3)
        assert torch.equal(alone.map, whole[i].map), "to the last bit"
        assert alone.notes == whole[i].notes
        torch.testing.assert_close(bound[i].raw(images[i]).map, whole[i].map, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("call", CALLS)
def test_a_run_over_images_makes_few_batches_and_resumes_to_the_same_bytes(call: str, tmp_path) -> None:
    seen: list[int] = []
    given = pictures(5)

    def run(images: list[np.ndarray], folder: str) -> attrsens.Report:
        f = classifier(watch=seen)
        return attrsens.explain(images, model=f, method=call, cache_dir=tmp_path / folder)

    whole = run(given, "a")
    assert whole.failures == []
    assert 5 in seen
    assert len({a.map.tobytes() for a in whole.attributions}) == 5
    seen.clear()
    again = run(given, "a")
    assert seen == []
    assert again.provenance.cached_cells == 5
    assert [a.map.tobytes() for a in again.attributions] == [a.map.tobytes() for a in whole.attributions]
    # a run that was cut off after two images, and goes on
    request = Request([None] * 5, [classifier()], ["top1"], [parse_call(call)], None)
    width = width_of(request, request.classifiers[0], request.calls[0])
    assert width == 5
    stored = sorted((tmp_path / "a").rglob("*.safetensors"))
    f, parsed = classifier(), parse_call(call)
    keys = [cell_of(f, r.image.sha256, r.target.index, parsed, width=5).raw().key for r in whole.records]
    for path in stored:
        if path.stem in keys[2:]:
            path.unlink()
    resumed = run(given, "a")
    assert resumed.provenance.cached_cells == 2
    assert [a.map.tobytes() for a in resumed.attributions] == [a.map.tobytes() for a in whole.attributions]


def test_batches_are_even_so_that_few_rows_are_copies() -> None:
    seen: list[int] = []
    f = classifier(watch=seen)
    most = f.sizes[1]
    call = parse_call(CALLS[0])
    assert width_of(Request([None] * (most + 1), [f], ["top1"], [call], None), f, call) == (most + 2) // 2
    assert width_of(Request([None] * (3 * most), [f], ["top1"], [call], None), f, call) == most
    seen.clear()
    report = attrsens.explain(pictures(1), model=f, method=CALLS[0], target=["0", "1"], cache=False)
    assert [r.target.index for r in report.records] == [0, 1]
    assert seen[-4:] == [2] * 4, "four steps, two classes of one image in a batch"


def test_an_interrupt_in_a_later_batch_keeps_what_is_finished() -> None:
    first, second = classifier(), classifier(name="other@0")
    count = [0]

    def stop(*_: object) -> None:
        count[0] += 1
        if count[0] > 8:
            raise KeyboardInterrupt

    second.network.register_forward_pre_hook(stop)
    with pytest.raises(Interrupted) as stopped:
        execute(prepare(pictures(5), model=[first, second], method=["grad", CALLS[0]], cache=False))
    records = stopped.value.report.records
    assert [r.method.name for r in records] == ["mp"] * 5, "the first model's batch was finished"
    assert {r.model.name for r in records} == {first.name}


def test_images_of_other_sizes_and_failures_do_not_disturb_the_group() -> None:
    f = classifier(crop=None)
    images = [*pictures(2), *pictures(1, 24), np.zeros((0, 0, 3), np.uint8), *pictures(3)[2:]]
    report = attrsens.explain(images, model=f, method=CALLS[0], cache=False)
    assert [r.image.path for r in report.records] == ["array-0", "array-1", "array-2", "array-4"]
    assert [failure.image for failure in report.failures] == ["array-3"]
    assert report.attributions[2].map.shape == (24, 24)


def test_the_batch_is_part_of_the_key_only_where_it_counts() -> None:
    f = classifier()
    one, many = (cell_of(f, "a", 0, parse_call(CALLS[0]), width=w).key for w in (1, 8))
    assert one != many
    one, many = (cell_of(f, "a", 0, parse_call("grad"), width=w).key for w in (1, 8))
    assert one == many
    one, many = (cell_of(f, "a", 0, parse_call("mp+topk:k=3"), width=w).key for w in (1, 8))
    assert one == many, "wrapped, it runs image by image"
