"""`attrsens compare`: who agrees with whom, under noise, without an object, over images."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from PIL import Image
from test_api import picture
from test_score import body, spent
from toys import Linear, SmallNet, draw, linear, small

import attrsens
from attrsens.engine.agreement import Tables, brief, labels, matrices
from attrsens.engine.changes import BLUR, Erasure, changes
from attrsens.engine.controls import FREE
from attrsens.engine.inputs import Source
from attrsens.engine.plan import plan
from attrsens.engine.prepare_compare import USUAL, prepare_compare
from attrsens.engine.report import Record, Report, json_schema, to_json
from attrsens.methods.controls import scrambled
from attrsens.seeds import Stream
from attrsens.spec import SIMILARITIES

METHODS = ["grad", "gi", "sg:n=3"]


def twin(shift: float = 0.2, name: str = "twin", **options: object) -> attrsens.Classifier:
    """`small()` with other weights."""
    net = SmallNet("reused")
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.add_(draw(*p.shape, seed=100 + i) * shift)
    given = {"crop": 16, "device": "cpu", "name": name} | options
    return attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, **given)


def decoded(pixels: np.ndarray) -> attrsens.images.Image:
    from attrsens.images import Image as Decoded

    return Decoded("a", pixels)


def noisy(pixels: np.ndarray, sd: float, seed: int = 0) -> np.ndarray:
    """The noise as it is defined, of pixels (H, W, 3) in 8 bits."""
    clean = pixels.transpose(2, 0, 1) / np.float32(255)
    noise = Stream(seed, decoded(pixels).sha256, "input noise").normal([0], clean.shape)[0]
    return np.clip(clean + np.float32(sd) * noise, 0, 1)


def similarities(report: Report, name: str) -> dict[tuple[str, str], float | None]:
    return {(r.key, s.to): s.value for r in report.records for s in r.similarities if s.name == name}


# -- noise -----------------------------------------------------------------------------------------------------------


def test_noise_does_not_move_the_gradient_of_a_linear_net() -> None:
    f, _ = linear(side=12)
    report = attrsens.compare(picture(0, 12), model=f, noise=[0.1, 0.3], metrics="cosine,spearman,l2", cache=False)
    assert [r.input.noise for r in report.records] == [0.0, 0.1, 0.3]
    for name, best in (("cosine", 1), ("spearman", 1), ("l2", 0)):
        found = similarities(report, name)
        assert len(found) == 3
        assert list(found.values()) == pytest.approx([best] * 3, abs=1e-6)
    assert all(s.floor is not None and abs(s.value - s.floor) > 0.3 for r in report.records for s in r.similarities)


def test_input_times_gradient_of_a_linear_net_shows_the_noise_itself() -> None:
    f, weight = linear(side=12)
    pixels = picture(1, 12)
    report = attrsens.compare(pixels, model=f, method="gi:reduce=none", noise=0.2, seed=5, metrics="l1", cache=False)
    target = report.records[0].target.index
    clean, changed = (a.map for a in report.attributions)
    expected = weight[target].numpy() * (noisy(pixels, 0.2, seed=5) - noisy(pixels, 0.0))
    np.testing.assert_allclose(changed - clean, expected, atol=2e-5)
    assert report.config["noise_seed"] == 5


@pytest.mark.parametrize("sd", [0.02, 0.5])
def test_label_flips_are_those_of_the_noisy_pixels(sd: float) -> None:
    f, weight = linear(seed=3, side=6)
    images = [picture(i, 6) for i in range(12)]
    report = attrsens.compare(images, model=f, noise=sd, metrics="cosine", cache=False)
    bias = f.network.bias.detach().numpy()
    w = weight.flatten(1).numpy()
    flips, changes_ = [], []
    for pixels in images:
        before, after = (w @ noisy(pixels, s).ravel() + bias for s in (0.0, sd))
        flips.append(before.argmax() != after.argmax())
        p = [np.exp(z - z.max())[before.argmax()] / np.exp(z - z.max()).sum() for z in (before, after)]
        changes_.append(p[1] - p[0])
    altered = [r for r in report.records if r.input.noise]
    assert [r.input.prediction.flipped for r in altered] == flips
    assert all(r.input.prediction is None for r in report.records if not r.input.noise)
    rows = {a.quantity: a for a in report.aggregates}
    assert rows["label_flip"].mean == pytest.approx(np.mean(flips))
    assert rows["probability_change"].mean == pytest.approx(np.mean(changes_), abs=1e-5)
    assert any(flips) or sd < 0.1
    for r in altered:  # the class stays that of the clean image
        clean = next(c for c in report.records if c.image.sha256 == r.image.sha256)
        assert r.target == clean.target
        assert r.input.prediction.rank > 1 or not r.input.prediction.flipped


def test_noise_levels_are_one_draw_and_the_methods_draws_stay() -> None:
    f, pixels = small(), picture()
    one = attrsens.compare(pixels, model=f, method="sg:n=3", noise=[0.1], cache=False)
    two = attrsens.compare(pixels, model=f, method="sg:n=3", noise=[0.3, 0.1, 0.0], cache=False)
    assert [r.input.noise for r in two.records] == [0.0, 0.3, 0.1]
    assert two.records[2].key == one.records[1].key
    np.testing.assert_array_equal(two.attributions[2].map, one.attributions[1].map)
    spec = attrsens.METHODS["sg"]
    bound = attrsens.Explainer(
        f, spec, one.records[0].target.index, spec.complete({"n": 3}), image=decoded(pixels).sha256
    )
    by_hand = bound(torch.from_numpy(noisy(pixels, 0.1)))
    np.testing.assert_allclose(one.attributions[1].map, by_hand.numpy(), rtol=1e-4, atol=1e-7)


def test_noise_on_the_picture_is_rounded_and_resized_with_it() -> None:
    f = small(resize=16)
    pixels = picture(4, 40)
    options = {"model": f, "noise": 0.3, "metrics": "cosine"}
    there = attrsens.compare(pixels, **options, noise_at="picture")
    noise = Stream(0, decoded(pixels).sha256, "input noise").normal([0], pixels.shape)[0]
    changed = (np.clip(pixels / np.float32(255) + np.float32(0.3) * noise, 0, 1) * 255).round().astype(np.uint8)
    expected = f.preprocess.apply(decoded(changed)).transpose(1, 2, 0) * 255
    np.testing.assert_array_equal(there.attributions[1].input, expected.round())
    here = attrsens.compare(pixels, **options)
    assert here.records[1].key != there.records[1].key
    shift = [np.abs(r.attributions[1].input - r.attributions[0].input.astype(float)).mean() for r in (here, there)]
    assert shift[0] > 1.5 * shift[1], "resizing averages noise"


def test_another_seed_is_another_noise_and_another_cell() -> None:
    options = {"model": small(), "noise": 0.1, "metrics": "cosine"}
    a, b = (attrsens.compare(picture(), seed=seed, **options) for seed in (0, 1))
    assert a.records[0].key == b.records[0].key
    assert a.records[1].key != b.records[1].key
    assert not np.array_equal(a.attributions[1].map, b.attributions[1].map)


# -- pairs -----------------------------------------------------------------------------------------------------------


def test_the_matrix_is_that_of_the_similarities_pair_by_pair() -> None:
    options = {"model": [small(), twin()], "method": METHODS, "noise": 0.1, "cache": False}
    report = attrsens.compare([picture(0), picture(1)], **options)
    assert len(report.records) == 24
    maps = {(r.image.sha256, r.key): a.map for r, a in zip(report.records, report.attributions, strict=True)}
    for image in {r.image.sha256 for r in report.records}:
        mine = [r for r in report.records if r.image.sha256 == image]
        for name in USUAL.split(","):
            found = {(r.key, s.to): s for r in mine for s in r.similarities if s.name == name}
            assert set(found) == {(a.key, b.key) for a, b in combinations(mine, 2)}
            spec = SIMILARITIES[name]
            for (a, b), info in found.items():
                left, right = maps[image, a][None], maps[image, b][None]
                for x, y in ((left, right), (right, left)):
                    assert info.value == pytest.approx(spec.function(x, y, **spec.complete())[0, 0], abs=1e-9)
                assert info.role == "pair"
                assert info.rescaled == pytest.approx((info.value - info.floor) / (1 - info.floor))


def test_the_floor_is_of_either_map_in_turn_and_the_ceiling_of_both_methods() -> None:
    f, pixels = small(), picture()
    report = attrsens.compare(pixels, model=f, method=["grad", "sg:n=3"], metrics="spearman", cache=False)
    (info,) = report.records[0].similarities
    grad, sg = (torch.from_numpy(a.map) for a in report.attributions)
    stream = Stream(0, report.records[0].image.sha256, "control phase")
    raws = [attrsens.explain(pixels, model=f, method=m, reduce="none", cache=False) for m in ("grad", "sg:n=3")]
    replaced = [scrambled(torch.from_numpy(raw.attributions[0].map), stream).mean(0) for raw in raws]
    spearman = SIMILARITIES["spearman"].function
    pairs = [(grad, replaced[1]), (replaced[0], sg)]
    values = [spearman(a.numpy()[None], b.numpy()[None])[0, 0] for a, b in pairs]
    assert info.floor == info.controls["phase"] == pytest.approx(np.mean(values), abs=1e-6)
    again = attrsens.explain(pixels, model=f, method="sg:n=3,seed=1", cache=False).attributions[0].map
    assert info.ceiling == pytest.approx(spearman(sg.numpy()[None], again[None])[0, 0] ** 0.5, abs=1e-6)
    assert set(info.controls) == {*FREE, "other"}
    few = attrsens.compare(pixels, model=f, method=["grad", "sg:n=3"], metrics="spearman", calibrate=False, cache=False)
    assert set(few.records[0].similarities[0].controls) == set(FREE)
    assert few.records[0].similarities[0].ceiling is None
    assert few.records[0].similarities[0].floor == info.floor
    assert spent(few) < spent(report)


def test_maps_of_other_shapes_or_other_parts_of_the_image_are_not_compared() -> None:
    shapes = attrsens.compare(picture(), model=small(), method=["grad", "grad:reduce=none"], cache=False)
    assert {s.value for s in shapes.records[0].similarities} == {None}
    assert "differ in shape" in shapes.records[0].similarities[0].reason
    other = twin(resize=20)
    report = attrsens.compare(picture(0, 24), model=[twin(0, "one", resize=16), other], cache=False)
    (info, *_) = report.records[0].similarities
    assert info.value is None
    assert info.floor is None
    assert "different parts of the image" in info.reason
    row = next(a for a in report.aggregates if a.quantity == "spearman")
    assert (row.mean, row.n, row.missing, row.reasons) == (None, 0, 1, {info.reason: 1})


def test_a_map_that_cannot_be_compared_says_why() -> None:
    report = attrsens.compare(picture(), model=small(), method=["grad", "constant"], metrics="spearman", cache=False)
    (info,) = report.records[0].similarities
    assert (info.value, info.reason) == (None, "the map is constant")


def test_all_models_explain_the_first_ones_class() -> None:
    a, b = small(), twin(1.0)
    images = [picture(i) for i in range(6)]
    tops = [attrsens.explain(images, model=m, cache=False) for m in (a, b)]
    tops = [[r.target.index for r in t.records] for t in tops]
    assert tops[0] != tops[1], "the nets of this test disagree"
    report = attrsens.compare(images, model=[a, b], metrics="cosine", cache=False)
    assert [r.target.index for r in report.records] == [t for t in tops[0] for _ in range(2)]
    turned = attrsens.compare(images, model=[b, a], metrics="cosine", cache=False)
    assert [r.target.index for r in turned.records] == [t for t in tops[1] for _ in range(2)]
    for record, top in zip(report.records[1::2], tops[1], strict=True):
        assert (record.target.rank == 1) == (record.target.index == top)


def test_order_of_images_and_batches_change_nothing() -> None:
    images = [picture(i) for i in range(3)]
    options = {"method": METHODS, "noise": 0.1, "metrics": f"{USUAL},deletion", "cache": False}
    reference = attrsens.compare(images, model=small(), **options)
    for report in (
        attrsens.compare(images[::-1], model=small(), **options),
        attrsens.compare(images, model=small(batch=1), **options),
    ):
        theirs = {(r.image.sha256, r.key): r for r in report.records}
        for record in reference.records:
            other = theirs[record.image.sha256, record.key]
            for s, t in zip(record.similarities, other.similarities, strict=True):
                assert (s.name, s.to) == (t.name, t.to)
                assert s.value == pytest.approx(t.value, abs=1e-5)
                assert s.floor == pytest.approx(t.floor, abs=1e-5)
        for mine, other in zip(reference.aggregates, report.aggregates, strict=True):
            assert (mine.quantity, mine.group) == (other.quantity, other.group)
            assert mine.mean == pytest.approx(other.mean, abs=1e-5)


# -- an object removed -----------------------------------------------------------------------------------------------


def masked(folder: Path, mask: np.ndarray, name: str = "mask.png") -> Path:
    Image.fromarray(mask.astype(np.uint8)).save(folder / name)
    return folder / name


@pytest.mark.parametrize(("fill", "value"), [("black", 0.0), ("white", 1.0), ("grey", 0.5), ("mean", 0.3)])
def test_an_erased_object_is_filled(fill: str, value: float, tmp_path: Path) -> None:
    mask = np.zeros((12, 12))
    mask[2:6, 3:9] = 1
    weight, bias = draw(4, 3 * 144), draw(4, seed=1)
    f = attrsens.Classifier(Linear(weight, bias), [0.3] * 3, [1.0] * 3, crop=12, device="cpu")
    pixels = picture(2, 12)
    path = masked(tmp_path, mask)
    report = attrsens.compare(pixels, model=f, method="gi", erase=path, fill=fill, metrics="l1", cache=False)
    clean, erased = report.records
    assert (erased.input.erased, erased.input.fill, erased.input.noise) == (str(path), fill, 0.0)
    expected = pixels.transpose(2, 0, 1) / np.float32(255)
    expected[:, 2:6, 3:9] = value
    logits = weight.numpy() @ (expected - 0.3).ravel() + bias.numpy()
    share = np.exp(logits - logits.max())
    said = erased.input.prediction
    assert said.probability == pytest.approx(float(share[clean.target.index] / share.sum()), rel=1e-4, abs=1e-7)
    assert said.top == int(logits.argmax())
    assert said.flipped == (said.top != clean.target.index)
    np.testing.assert_array_equal(report.attributions[1].input, (expected.transpose(1, 2, 0) * 255).round())
    for record in report.records:
        assert record.target.probability == clean.target.probability


def test_the_mask_goes_through_the_images_own_resizing_and_crop(tmp_path: Path) -> None:
    mask = np.zeros((40, 24))
    mask[:20] = 255  # the upper half; resized to 16 x 26, of which rows 5 to 20 are seen
    f = small(resize=16)
    report = attrsens.compare(
        np.full((40, 24, 3), 200, np.uint8),
        model=f,
        method="constant",
        erase=masked(tmp_path, mask),
        fill="black",
        metrics="l1",
        cache=False,
    )
    seen = report.attributions[1].input[:, :, 0]
    assert (seen[:7] == 0).all()
    assert (seen[9:] == 200).all()


def test_erasing_blurs_and_precedes_the_noise(tmp_path: Path) -> None:
    from scipy.ndimage import gaussian_filter

    pixels = picture(3)
    mask = np.zeros((16, 16))
    mask[:, 8:] = 7
    f = small()
    report = attrsens.compare(pixels, model=f, erase=masked(tmp_path, mask), fill="blur", noise=0.1, cache=False)
    assert [(r.input.noise, bool(r.input.erased)) for r in report.records] == [
        (0.0, False),
        (0.1, False),
        (0.0, True),
        (0.1, True),
    ]
    clean = pixels.transpose(2, 0, 1) / np.float32(255)
    blurred = np.stack([gaussian_filter(c, BLUR * 16, mode="nearest") for c in clean])
    erased = np.concatenate([clean[:, :, :8], blurred[:, :, 8:]], 2)
    noise = Stream(0, decoded(pixels).sha256, "input noise").normal([0], clean.shape)[0]
    expected = np.clip(erased + np.float32(0.1) * noise, 0, 1)
    for attribution, wanted in zip(report.attributions[2:], (erased, expected), strict=True):
        assert np.abs(attribution.input - wanted.transpose(1, 2, 0) * 255).max() <= 1.01


def test_fills_and_masks_have_cells_of_their_own(tmp_path: Path) -> None:
    halves = [np.zeros((16, 16)) for _ in range(2)]
    halves[0][:, :8] = halves[1][:, 8:] = 1
    paths = [masked(tmp_path, half, f"{i}.png") for i, half in enumerate(halves)]
    keys = set()
    for path in paths:
        for fill in ("black", "mean"):
            report = attrsens.compare(picture(), model=small(), erase=path, fill=fill)
            assert spent(report) > (0, 0)
            keys.add(report.records[1].key)
    assert len(keys) == 4
    copy = masked(tmp_path, halves[0], "copy.png")
    again = attrsens.compare(picture(), model=small(), erase=copy, fill="black")
    assert spent(again) == (0, 0), "the mask counts, not its name"


def test_masks_of_a_folder_go_to_the_images_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for i in range(3):
        Image.fromarray(picture(i)).save(tmp_path / "images" / f"{i}.png")
    for i in range(2):
        mask = np.zeros((16, 16))
        mask[i] = 1
        masked(tmp_path / "masks", mask, f"{i}.png")
    report = attrsens.compare(
        tmp_path / "images", model=small(), erase=tmp_path / "masks", fill="white", metrics="cosine", cache=False
    )
    erased = [(r, a) for r, a in zip(report.records, report.attributions, strict=True) if r.input.erased]
    assert [(a.input[i] == 255).all() for i, (_, a) in enumerate(erased)] == [True, True]
    (failure,) = report.failures
    assert failure.stage == "erase"
    assert failure.image.endswith("2.png")
    assert len(report.records) == 5
    row = next(a for a in report.aggregates if a.quantity == "cosine")
    assert (row.n, row.missing, row.reasons) == (2, 1, {"there is no map": 1})


def test_voc_borders_are_no_object_and_masks_of_another_size_are_refused(tmp_path: Path) -> None:
    mask = np.zeros((16, 16))
    mask[0], mask[1] = 1, 255
    f = small()
    erasure = Erasure(masked(tmp_path, mask))
    cover = erasure.cover(Source("a", decoded), decoded(picture()), f)
    assert cover.sum(1).tolist() == [16.0, *[0.0] * 15]
    assert Erasure(masked(tmp_path, mask == 1)).cover(Source("a", decoded), decoded(picture()), f)[0].all()
    source = Source("photo", lambda: decoded(picture(0, 20)))
    with pytest.raises(attrsens.AttrsensError, match="is 16 x 16 pixels, but the image has 20 x 20"):
        erasure.cover(source, source.load(), f)
    with pytest.raises(attrsens.AttrsensError, match="marks no pixel"):
        Erasure(masked(tmp_path, mask * 0))


# -- the store -------------------------------------------------------------------------------------------------------


def test_a_rerun_costs_nothing_and_every_way_gives_the_same_bytes(tmp_path: Path) -> None:
    mask = np.zeros((16, 16))
    mask[4:8, 4:8] = 1
    options = {"model": [small(), twin()], "method": METHODS, "noise": 0.1, "erase": masked(tmp_path, mask)}
    options["metrics"] = "cosine,spearman,deletion"
    images = [picture(0), picture(1)]
    whole = attrsens.compare(images, **options, cache=False)
    attrsens.compare(images[1], **options | {"metrics": "deletion", "method": "gi", "noise": ()})
    resumed = attrsens.compare(images, **options)
    again = attrsens.compare(images, **options)
    assert body(whole) == body(resumed) == body(again)
    assert (0, 0) < spent(resumed) < spent(whole)
    assert spent(again) == (0, 0)
    assert again.provenance.cached_cells > 0


def test_maps_that_explain_made_are_not_made_again() -> None:
    f = small()
    explained = attrsens.explain(picture(), model=f, method=METHODS)
    report = attrsens.compare(picture(), model=f, method=METHODS, calibrate=False)
    assert spent(report) == (0, 0)
    assert [r.key for r in report.records] == [r.key for r in explained.records]


@pytest.mark.parametrize("calibrate", [None, False])
def test_a_plan_counts_what_is_then_made(calibrate: bool | None, tmp_path: Path) -> None:
    mask = np.zeros((16, 16))
    mask[4:8, 4:8] = 1
    options = {"model": [small(), twin()], "method": METHODS, "noise": 0.1, "erase": masked(tmp_path, mask)}
    options |= {"metrics": "cosine,deletion", "calibrate": calibrate}
    prepared = prepare_compare([picture()], **options)
    foreseen = plan(prepared.request, prepared.store, prepared.judging)
    report = attrsens.compare([picture()], **options)
    assert foreseen.cells == len(report.records) == 2 * 3 * 4
    assert (foreseen.forward, foreseen.backward) == spent(report)
    known = prepare_compare([picture()], **options)
    after = plan(known.request, known.store, known.judging)
    assert (after.forward, after.backward, after.cached) == (0, 0, 24)


# -- over images -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide() -> Report:
    images = [picture(i) for i in range(8)]
    options = {"model": [small(), twin()], "method": METHODS, "noise": 0.1, "metrics": "spearman,gini", "cache": False}
    return attrsens.compare(images, **options)


def test_rows_of_pairs_are_means_over_images(wide: Report) -> None:
    Draft202012Validator(json_schema()).validate(json.loads(to_json(wide)))
    first = {r.image.sha256: r for r in reversed(wide.records)}
    row = next(a for a in wide.aggregates if a.quantity == "spearman")
    values = [r.similarities[0].value for r in first.values()]
    assert row.mean == pytest.approx(np.mean(values))
    assert row.ci95[0] < row.mean < row.ci95[1]
    assert row.group["expression"].startswith("grad:")
    assert row.group["to"]["expression"].startswith("gi:")
    assert sum(a.quantity == "spearman" for a in wide.aggregates) == 12 * 11 / 2
    floors = next(a for a in wide.aggregates if a.quantity == "spearman (floor)")
    assert floors.mean == pytest.approx(np.mean([r.similarities[0].floor for r in first.values()]))


def test_agreement_is_the_mean_over_the_other_methods(wide: Report) -> None:
    rows = [a for a in wide.aggregates if a.quantity == "agreement (spearman)"]
    assert len(rows) == 12
    for row in rows:
        values = []
        for image in {r.image.sha256 for r in wide.records}:
            mine = [
                r
                for r in wide.records
                if (r.image.sha256, r.model.name, r.input.noise) == (image, row.group["model"], row.group["noise"])
            ]
            own = next(r for r in mine if r.method.expression == row.group["expression"])
            keys = {r.key for r in mine}
            found = [s.rescaled for r in mine for s in r.similarities if own.key in (r.key, s.to) and s.to in keys]
            assert len(found) == 2
            values.append(np.mean(found))
        assert row.mean == pytest.approx(np.mean(values))


def test_differences_are_paired_and_holm_is_over_a_quantity(wide: Report) -> None:
    from attrsens.engine.inference import holm

    gini = [c for c in wide.comparisons if c.quantity == "gini"]
    assert len(gini) == 4 * 3 + 2 * 3 + 2 * 3  # of methods, of models, of noise
    for c in gini:
        changed = [key for key in ("model", "noise", "expression") if c.a[key] != c.b[key]]
        assert len(changed) == 1
        ours = [
            [
                r.scores["gini"].value
                for r in wide.records
                if (r.model.name, r.input.noise, r.method.expression)
                == (side["model"], side["noise"], side["expression"])
            ]
            for side in (c.a, c.b)
        ]
        assert c.difference == pytest.approx(np.mean(ours[0]) - np.mean(ours[1]))
        assert c.n == 8
    assert [c.p_holm for c in gini] == holm([c.p for c in gini])
    pairs = [c for c in wide.comparisons if c.quantity == "spearman"]
    between = [c for c in pairs if c.a["model"] != c.b["model"]]
    through = [c for c in pairs if c.a["model"] == c.b["model"]]
    cross = [c for c in through if c.a["to"]["model"] != c.a["model"]]
    through = [c for c in through if c not in cross]
    assert len(between) == 6 * 5 / 2
    assert len(through) == 2 * 3
    assert len(cross) == 2 * 3, "which method of one model comes closer to the grad of the other"
    for c in cross:
        ends = [[(g["model"], g["method"]) for g in (side, side["to"])] for side in (c.a, c.b)]
        (shared,) = set(ends[0]) & set(ends[1])
        assert shared[1] == "grad"
        assert len({model for model, _ in {*ends[0], *ends[1]} - {shared}} | {shared[0]}) == 2
    for c in through:
        assert c.a["expression"] == c.a["to"]["expression"] != c.b["expression"]
        assert (c.a["noise"], c.a["to"]["noise"]) == (0.0, 0.1)
    flips = [c for c in wide.comparisons if c.quantity == "label_flip"]
    assert [(c.a["model"], c.b["model"]) for c in flips] == [("smallnet", "twin")]


def without(report: Report, *lost: tuple[int, str, str]) -> list[Record]:
    """The records but those of (image, model, method), and what the others say of them."""
    images = list(dict.fromkeys(r.image.sha256 for r in report.records))
    gone = {(images[image], model, method) for image, model, method in lost}
    out = [r for r in report.records if (r.image.sha256, r.model.name, r.method.name) not in gone]
    keys = {(r.image.sha256, r.key) for r in out}
    return [replace(r, similarities=[s for s in r.similarities if (r.image.sha256, s.to) in keys]) for r in out]


def test_a_map_that_the_first_image_lacks_changes_no_question(wide: Report) -> None:
    def asked(records: list[Record]) -> set[frozenset[str]]:
        rows = Tables(records, wide.records[0].method.expression).comparisons()

        def side(group: dict[str, object]) -> frozenset[str]:
            to = group.get("to")
            return frozenset(repr(g) for g in ({k: v for k, v in group.items() if k != "to"}, to) if g)

        return {frozenset([c.quantity, repr(sorted(side(c.a))), repr(sorted(side(c.b)))]) for c in rows}

    assert asked(without(wide, (0, "twin", "grad"))) == asked(wide.records)
    assert asked(without(wide, (0, "smallnet", "grad"))) == asked(wide.records)


def test_agreement_is_over_the_same_methods_on_every_image(wide: Report) -> None:
    rows = Tables(without(wide, (2, "twin", "gi"))).aggregates()
    of = {
        (a.group["model"], a.group["method"]): a
        for a in rows
        if a.quantity == "agreement (spearman)" and not a.group["noise"]
    }
    assert {key: (a.n, a.missing) for key, a in of.items() if key[0] == "twin"} == {
        ("twin", method): (7, 1) for _, method in of
    }
    assert all(a.n == 8 for key, a in of.items() if key[0] == "smallnet")


def test_the_agreement_of_two_methods_is_not_compared_with_itself(wide: Report) -> None:
    records = without(wide, *((i, model, "sg") for i in range(8) for model in ("smallnet", "twin")))
    found = [c for c in Tables(records).comparisons() if c.quantity == "agreement (spearman)"]
    assert len(found) == 4 + 4  # of models, of noise
    assert all(c.a["expression"] == c.b["expression"] for c in found)


def test_models_of_one_name_are_told_apart_by_their_ids() -> None:
    a, b = small(), twin(name="smallnet")
    report = attrsens.compare(picture(), model=[a, b], metrics="cosine", cache=False)
    row = report.aggregates[0]
    assert (row.group["model"], row.group["to"]["model"]) == (a.id, b.id)
    assert Tables(report.records).group(next(iter(Tables(report.records).records)))["model"] == a.id


def test_the_matrix_comes_back_from_the_report(wide: Report) -> None:
    (matrix,) = matrices(wide)
    assert len(matrix.groups) == 12
    assert len(matrix.mean) == len(matrix.rescaled) == len(matrix.floor) == 66
    names = labels(matrix.groups)
    assert names[:4] == ["smallnet grad", "smallnet gi", "smallnet sg:n=3", "smallnet grad noise 0.1"]
    assert brief("sg:n=50,spread=0.15+smooth:agg=mean") == "sg+smooth"
    assert brief("mine:a=1") == "mine:a=1"


def test_the_image_given_twice_counts_once() -> None:
    report = attrsens.compare([picture(), picture()], model=small(), method=METHODS, cache=False)
    row = report.aggregates[0]
    assert (row.n, row.missing) == (1, 0)


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "grad"], "compare needs two of something"),
        (["--noise", "2"], "input: noise must be a number from 0 to 1; got '2'"),
        (["--noise", "much"], "input: noise must be a number from 0 to 1; got 'much'"),
        (["--noise", "0.1", "--noise-at", "sky"], "input: noise_at must be one of crop, picture; got 'sky'"),
        (["--noise", "0"], "compare needs two of something"),
        (["--erase", "nowhere.png"], "erase: no file or folder nowhere.png"),
        (["--method", "sp", "--fill", "black"], "fill belongs to --erase; a method takes its own by expression"),
        (["--model", "lite0", "--model", "lite0"], "a model is given twice"),
        (["--noise", "0.1", "--metrics", "sim"], "unknown metric 'sim'"),
        (["--noise", "0.1", "--metrics", "loc"], "loc: needs --annotations"),
        (["--noise", "0.1", "--method", "gard"], "unknown method 'gard'"),
    ],
)
def test_mistakes_are_one_line_before_any_work(run_cli, tmp_path, arguments, message) -> None:
    code, stdout, stderr = run_cli("compare", "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in stderr
    assert stderr.count("\n") == 1
    assert not stdout
    assert not (tmp_path / "out").exists()


def test_the_fill_and_the_mask_are_checked_first(run_cli, tmp_path) -> None:
    path = masked(tmp_path, np.ones((4, 4)))
    code, _, stderr = run_cli("compare", "--erase", path, "--fill", "pink", "--out", tmp_path / "out")
    assert code == 2
    assert "erase: fill must be one of mean, black, grey, white, blur; got 'pink'" in stderr
    path.write_text("no picture")
    code, _, stderr = run_cli("compare", "--erase", path, "--out", tmp_path / "out")
    assert code == 2
    assert "erase: " in stderr


def test_gates_know_the_rows_of_pairs(run_cli, tmp_path) -> None:
    arguments = ("compare", "sample:coffee", "--method", "grad", "--method", "edges", "--no-calibrate")
    arguments += ("--metrics", "spearman", "--out", tmp_path / "out")
    code, _, stderr = run_cli(
        *arguments, "--fail-if", "spearman (rescaled)<0.9", "--fail-if", "agreement (spearman)<-2"
    )
    assert code == 1
    assert "spearman (rescaled)<0.9" in stderr
    gates = json.loads((tmp_path / "out" / "report.json").read_bytes())["gates"]
    assert [gate["passed"] for gate in gates] == [False, True]
    code, _, stderr = run_cli(*arguments, "--fail-if", "spaerman<0.9")
    assert code == 2
    assert "did you mean 'spearman'?" in stderr


def test_models_of_other_classes_are_refused() -> None:
    other = linear(side=16)[0]
    with pytest.raises(attrsens.AttrsensError, match=r"theirs differ: smallnet has 5, linear has 4 classes"):
        attrsens.compare(picture(), model=[small(), other])


def test_the_command_prints_a_table_and_draws_it(run_cli, tmp_path, monkeypatch) -> None:
    """On the default model."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    out = tmp_path / "out"
    arguments = ("sample:coffee", "--method", "grad", "--method", "gi", "--noise", "0.1", "--no-calibrate")
    code, stdout, stderr = run_cli("compare", *arguments, "--metrics", "spearman,ssim", "--out", out)
    assert (code, "\x1b" in stdout) == (0, False)
    data = json.loads((out / "report.json").read_bytes())
    Draft202012Validator(json_schema()).validate(data)
    assert data["command"] == "compare"
    assert data["config"]["noise"] == [0.0, 0.1]
    assert data["figures"] == [
        "figures/montage-1.png",
        "figures/compare-1-spearman.png",
        "figures/compare-2-ssim.png",
    ]
    for name in (*data["figures"], *(r["heatmap"]["png"] for r in data["records"])):
        with Image.open(out / name) as drawn:
            assert drawn.info["Software"] == "attrsens"
            assert drawn.width > 400
    lines = stdout.splitlines()
    assert lines[0].startswith("spearman, mean over 1 image; above")
    table = lines[2:6]
    assert len({len(line) for line in table}) == 1, "aligned"
    assert [line.split()[0] for line in table] == ["1", "2", "3", "4"]
    first = data["records"][0]["similarities"][0]
    assert table[0].split()[-3] == f"{first['value']:.2f}"
    assert table[1].split()[-4] == f"{first['rescaled']:.2f}"
    assert "share of images whose top class" in stdout
    assert stderr.count("\n") == 1
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, coloured, _ = run_cli("compare", *arguments, "--metrics", "spearman,ssim", "--out", out)
    assert code == 0
    assert "\x1b[" in coloured
    import re

    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert run_cli("compare", *arguments, "--metrics", "spearman,ssim", "--out", out)[1] == stdout
    code, stdout, _ = run_cli("compare", *arguments, "--out", out, "--json", "-")
    assert code == 0
    assert json.loads(stdout)["command"] == "compare"
    theirs = out / "figures" / "compare-1-spearman.png"
    Image.new("RGB", (4, 4)).save(theirs)
    code, _, stderr = run_cli("compare", *arguments, "--out", out)
    assert code == 2
    assert "compare-1-spearman.png was not written by attrsens" in stderr


def test_an_image_without_a_mask_fails_alone(run_cli, tmp_path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    with Image.open(attrsens.samples.sample("coffee").path) as photo:
        masked(masks, np.ones((photo.height, photo.width)), "coffee.png")
    arguments = ("--method", "constant", "--method", "edges", "--metrics", "cosine", "--no-calibrate")
    code, stdout, stderr = run_cli(
        "compare", "sample:coffee", "sample:chelsea", *arguments, "--erase", masks, "--out", tmp_path / "out"
    )
    assert code == 3
    assert "erase failed: sample:chelsea: " in stderr
    assert "cosine" in stdout
    data = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert len(data["records"]) == 6


def test_pictures_of_an_earlier_run_are_no_images(tmp_path: Path) -> None:
    from attrsens.engine.inputs import expand

    (tmp_path / "figures").mkdir()
    (tmp_path / "heatmaps").mkdir()
    (tmp_path / "report.json").write_text("{}")
    for name in ("a.png", "figures/b.png", "heatmaps/c.png"):
        Image.fromarray(picture()).save(tmp_path / name)
    assert [s.name for s in expand([str(tmp_path)])] == [str(tmp_path / "a.png")]


def test_a_montage_has_pages_and_scales_by_model_and_method(tmp_path: Path) -> None:
    from attrsens.engine.verbs import execute
    from attrsens.render.agreement import CompareWriter
    from attrsens.render.montage import strips
    from attrsens.render.picture import colour_limit

    images = [picture(i) for i in range(9)]
    prepared = prepare_compare(images, model=[small(), twin()], method=["grad", "gi"], noise=0.1, metrics="cosine")
    writer = CompareWriter(tmp_path)
    kept = []
    report = execute(prepared, sink=lambda part: (writer.add(part), kept.append(part)))
    writer.finish(report)
    assert len(kept) == 9, "a part is an image"
    pages = ["figures/montage-1.png", "figures/montage-2.png"]
    assert report.figures == [*pages, "figures/compare-1-cosine.png"]
    (strip,) = strips(kept[0])
    assert len(strip.panels) == 8 + 4, "maps, and the inputs before them"
    limit = colour_limit([a.map for r, a in kept[0] if (r.model.name, r.method.name) == ("twin", "grad")])
    shown = [text for _, text in strip.panels if text[0] == "grad"]
    assert [text[1] for text in shown[2:]] == [f"{limit:.3g}"] * 2
    assert shown[0] != shown[2]


def test_levels_are_kept_in_order_without_repeats() -> None:
    assert [c.noise for c in changes(["0.2", 0.1, 0.0, 0.2], None, seed=3)] == [0.2, 0.1]
    assert all(c.seed == 3 for c in changes([0.2], None, seed=3))
