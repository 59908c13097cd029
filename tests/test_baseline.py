"""A report against an earlier one: what is matched, how far apart, what may be said, and what is read."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from scipy.stats import beta, binomtest
from toys import SmallNet

import attrsens
from attrsens.cli.baseline import add_baseline, check_options
from attrsens.engine import baseline, drift
from attrsens.engine.baseline_file import LIMIT
from attrsens.engine.drift import Entry, cosine_distance, judge, match, mean_bounds, proportion_bounds, relative_l2
from attrsens.engine.floor import Floor, noise_floor, threads
from attrsens.engine.prepare import Prepared, prepare
from attrsens.engine.report import Failure, Report, WrapperInfo, json_schema, to_data, to_json
from attrsens.engine.verbs import execute
from attrsens.errors import AttrsensError
from attrsens.heatmaps import sketch, unsketch

METHODS = ("grad", "sg:n=5")


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8))


def toy(noise: float = 0.0, layer: str = "conv2", head: float = 1.0, **options: Any) -> attrsens.Classifier:
    """SmallNet, with noise on one convolution as a share of its weights' norm; `head` scales its logits."""
    net = SmallNet("reused")
    with torch.no_grad():
        weight = getattr(net, layer).weight
        drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        weight.add_(drawn * noise * weight.norm() / drawn.norm())
        net.fc.weight.mul_(head)
        net.fc.bias.mul_(head)
    return attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, crop=16, device="cpu", name="toy", **options)


def ran(f: attrsens.Classifier, images: list[Any], methods: Any = METHODS, **options: Any) -> tuple[Prepared, Report]:
    prepared = prepare(images, model=f, method=list(methods), cache=False, **options)
    return prepared, execute(prepared)


@pytest.fixture(scope="module")
def first() -> tuple[Prepared, Report]:
    return ran(toy(), pictures(8))


@pytest.fixture
def kept(first: tuple[Prepared, Report], tmp_path: Path) -> Path:
    path = tmp_path / "baseline.json"
    path.write_bytes(baseline.slim(first[1]))
    return path


def rows(report: Report, quantity: str = "l2") -> dict[str, Any]:
    found = [c for c in report.comparisons if c.quantity == f"baseline.{quantity}"]
    return {c.b.get("method", ""): c for c in found}


# -- distances ---------------------------------------------------------------------------------------------------


def test_a_sketch_comes_back_in_half_precision() -> None:
    heatmap = (np.random.default_rng(0).normal(size=(28, 28)) * 1e-7).astype(np.float32)
    back = unsketch(*sketch(heatmap))
    assert np.linalg.norm(back - heatmap) < 2**-11 * np.linalg.norm(heatmap)
    assert np.abs(back - heatmap).max() > 0


def test_distances_in_closed_form() -> None:
    a, b = np.zeros((28, 28)), np.zeros((28, 28))
    a[0, 0], b[0, 0], b[0, 1] = 1.0, 1.0, 1.0
    assert relative_l2(a, b) == pytest.approx(1 / 2**0.5)
    assert relative_l2(a, 2 * a) == pytest.approx(0.5)
    assert relative_l2(a, -a) == pytest.approx(2.0)
    assert cosine_distance(a, b) == pytest.approx(1 - 1 / 2**0.5)
    assert cosine_distance(a, 3 * a) == 0.0
    assert cosine_distance(a, -a) == pytest.approx(2.0)
    zero = np.zeros((28, 28))
    assert (relative_l2(zero, zero), cosine_distance(zero, zero)) == (0.0, 0.0)
    assert (relative_l2(a, zero), cosine_distance(a, zero)) == (1.0, 1.0)
    assert (relative_l2(a, 1e299 * b), cosine_distance(a, 1e299 * b)) == pytest.approx((1.0, 1 - 1 / 2**0.5))


def test_small_changes_keep_their_digits() -> None:
    a, b = np.zeros((28, 28)), np.zeros((28, 28))
    a[0, 0], b[0, 0], b[0, 1] = 1.0, 1.0, 1e-9
    assert cosine_distance(a, b) == pytest.approx(5e-19)
    assert relative_l2(a * 1e-200, b * 1e-200) == pytest.approx(1e-9)  # whose squares vanish


# -- verdicts ----------------------------------------------------------------------------------------------------


def test_three_verdicts() -> None:
    spread = np.linspace(0.9, 1.1, 12)
    assert judge(spread, 0.5).verdict == "moved"
    assert judge(spread, 2.0).verdict == "equivalent"
    assert judge(np.linspace(0.0, 2.0, 12), 0.95).verdict == "cannot tell"
    assert judge(np.empty(0), 0.5).verdict == "cannot tell"


def test_bounds_are_no_tighter_than_students() -> None:
    values = np.random.default_rng(3).lognormal(size=9)
    from scipy.stats import t

    low, high = mean_bounds(values, 0.05)
    half = t.ppf(0.95, 8) * values.std(ddof=1) / 3
    assert low <= values.mean() - half
    assert high >= values.mean() + half


def test_bounds_of_a_proportion_are_clopper_and_pearsons() -> None:
    for k, n in ((0, 9), (1, 9), (4, 9), (9, 9)):
        low, high = proportion_bounds(np.repeat([1.0, 0.0], [k, n - k]), 0.025)
        expected = binomtest(k, n).proportion_ci(0.95, "exact")
        assert (low, high) == pytest.approx((expected.low, expected.high))
    assert proportion_bounds(np.ones(9), 0.05)[0] == pytest.approx(beta.ppf(0.05, 9, 1))


@pytest.mark.parametrize("n", [1, 3, 5, 8])
def test_an_exact_repeat_is_equivalent_and_says_of_which_images(n: int) -> None:
    for binary in (False, True):
        found = judge(np.zeros(n), 1e-3, binary=binary)
        assert (found.verdict, found.mean) == ("equivalent", 0.0)
        assert "exactly the same" in str(found.reason)
        assert ("this image" if n == 1 else f"these {n} images") in str(found.reason)
        assert (found.ci95 is None) == (not binary)


def test_evidence_in_closed_form_and_its_expectation() -> None:
    assert drift.evidence(np.array([3.0, 5.0]), 1.0) == pytest.approx(2 * 3)
    assert drift.evidence(np.array([0.0, 0.0, 2.0]), 2.0) == pytest.approx(0.25)
    rng = np.random.default_rng(0)
    for n in (1, 2, 3):  # at the margin it exceeds 20 in at most 5 %
        assert sum(drift.evidence(row, np.exp(0.5)) > 20 for row in rng.lognormal(size=(2000, n))) <= 100
        coins = 21.0 * (rng.random((2000, n)) < 1 / 21)  # the worst law: all or nothing
        assert sum(drift.evidence(row, 1.0) > 20 for row in coins) <= 100
    assert judge(np.array([200.0]), 1.0).verdict == "moved"
    assert "nothing is said" not in str(judge(np.array([200.0]), 1.0).reason)
    skewed = np.array([4.0, 4, 5, 4, 5, 4, 4, 400])  # whose interval holds the margin
    assert mean_bounds(skewed, 0.025)[0] < 1.0
    assert judge(skewed, 1.0).verdict == "moved"


def test_few_images_speak_for_themselves_only() -> None:
    within, beyond = judge(np.array([0.1, 0.9]), 1.0), judge(np.array([2.1, 3.0]), 1.0)
    assert (within.verdict, beyond.verdict) == ("equivalent", "moved")
    assert "nothing is said of others" in str(within.reason)
    assert "nothing is said of others" in str(beyond.reason)
    assert within.ci95 is None
    assert beyond.ci95 is None
    for unclear in ([1.9, 3.0], [0.1, 9.0], [0.9, 1.1]):
        assert judge(np.array(unclear), 1.0).verdict == "cannot tell"


def test_more_rows_want_more_evidence() -> None:
    values = np.random.default_rng(2).normal(1.0, 0.5, 8).clip(0)
    margin = values.mean() - 3.2 * values.std(ddof=1) / 8**0.5
    assert judge(values, margin).verdict == "moved"
    assert judge(values, margin, tests=20).verdict == "cannot tell"


@pytest.mark.parametrize("n", [6, 20])
@pytest.mark.parametrize("law", ["lognormal", "exponential", "uniform", "spike"])
def test_a_mean_at_the_margin_is_called_moved_in_at_most_one_of_twenty(law: str, n: int) -> None:
    rng = np.random.default_rng(5)
    draws, mean = {
        "lognormal": (rng.lognormal(size=(200, n)), np.exp(0.5)),
        "exponential": (rng.exponential(size=(200, n)), 1.0),
        "uniform": (rng.random((200, n)), 0.5),
        "spike": ((rng.random((200, n)) < 0.1) * rng.random((200, n)), 0.05),
    }[law]
    alarms = sum(judge(row, mean).verdict == "moved" for row in draws)
    assert binomtest(alarms, 200, 0.05, "greater").pvalue > 0.01


# -- matching ----------------------------------------------------------------------------------------------------


def entries(report: Report) -> list[Entry]:
    return [Entry.of(r) for r in report.records]


def test_records_meet_by_what_they_are_about(first: tuple[Prepared, Report]) -> None:
    mine = entries(first[1])
    found = match(mine, list(reversed(mine)))
    assert len(found.pairs) == 16
    assert not found.before
    assert not found.after
    assert all(a == b for a, b in found.pairs)
    changed = [
        replace(mine[0], image=replace(mine[0].image, sha256="0" * 64)),
        replace(mine[2], model=replace(mine[2].model, name="another")),
        replace(mine[4], target=replace(mine[4].target, index=77)),
        replace(mine[6], input=replace(mine[6].input, noise=0.1)),
        replace(mine[8], input=replace(mine[8].input, erased="mask.png")),
        *mine[10:],
    ]
    found = match(mine, changed)
    assert len(found.pairs) == 6
    assert len(found.before) == 10
    assert len(found.after) == 5
    renamed = [replace(e, model=replace(e.model, id="toy@other")) for e in mine]
    assert len(match(mine, renamed).pairs) == 16  # other weights are the point


def test_another_seed_and_a_new_parameter_are_the_same_call(first: tuple[Prepared, Report]) -> None:
    mine = [e for e in entries(first[1]) if e.method.name == "sg"]

    def changed(entry: Entry, **values: Any) -> Entry:
        method = replace(entry.method, parameters={**entry.method.parameters, **values}, expression=f"sg:{values}")
        return replace(entry, method=method)

    assert len(match(mine, [changed(e, seed=9) for e in mine]).pairs) == 8
    assert len(match(mine, [changed(e, tomorrow=1) for e in mine]).pairs) == 8
    assert not match(mine, [changed(e, n=6) for e in mine]).pairs
    both = [changed(e, seed=s) for e in mine for s in (1, 2)]
    assert not match(mine, both).pairs  # which of the two is not for guessing
    assert len(match(mine, mine + both).pairs) == 8  # the exact one


def test_a_name_that_looks_like_a_wrapped_method_is_not_one(first: tuple[Prepared, Report]) -> None:
    mine = entries(first[1])[:1]
    wrapped = replace(mine[0].method, expression="grad+smooth", wrappers=[WrapperInfo("smooth", 1, {})])
    posing = replace(mine[0].method, name="grad+smooth", expression="x")
    found = match([replace(mine[0], method=posing)], [replace(mine[0], method=wrapped)])
    assert not found.pairs
    assert (len(found.before), len(found.after)) == (1, 1)


# -- the whole ---------------------------------------------------------------------------------------------------


def test_a_repeat_is_equivalent_and_changes_nothing_else(kept: Path) -> None:
    prepared, report = ran(toy(), pictures(8))
    found = baseline.check(report, kept, floor=noise_floor(prepared.request, report.records))
    assert (found.explanations, found.predictions, found.causes) == ("equivalent", "equivalent", [])
    assert all(gate.passed for gate in report.gates)
    assert len(report.gates) == 4
    assert report.config["baseline"]["matched"] == 16
    assert not report.config["baseline"]["only_here"]
    assert not report.config["baseline"]["only_in_baseline"]
    Draft202012Validator(json_schema()).validate(json.loads(to_json(report)))


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_a_change_of_one_layer_is_found(kept: Path, share: float, layer: str) -> None:
    prepared, report = ran(toy(share, layer), pictures(8))
    found = baseline.check(report, kept, floor=noise_floor(prepared.request, report.records))
    assert found.explanations == "moved"
    row = rows(report)["grad"]
    assert row.verdict == "moved"
    assert row.n == 8
    assert row.margin == 1e-3
    assert 0.2 * share < row.difference < 20 * share
    assert [g.passed for g in report.gates if "grad" in g.expression] == [False]
    assert found.causes[0].startswith("weights, architecture or preprocessing of toy: toy@")


def test_methods_that_draw_are_held_against_their_draws_unless_a_margin_is_given(kept: Path) -> None:
    prepared, report = ran(toy(0.05), pictures(8))
    baseline.check(report, kept, floor=noise_floor(prepared.request, report.records))
    row = rows(report)["sg"]
    assert row.verdict == "equivalent"
    assert row.margin > 0.1
    assert "less than other seeds move it" in row.reason
    _, again = ran(toy(0.05), pictures(8))
    assert baseline.check(again, kept, margin=0.01).explanations == "moved"
    assert rows(again)["sg"].verdict == "moved"
    assert rows(again)["sg"].margin == 0.01
    assert rows(again, "cosine")["sg"].margin == pytest.approx(5e-5)


def test_size_alone_is_told_from_pattern(kept: Path) -> None:
    _, report = ran(toy(head=1.5), pictures(8), ["grad:output=logit"])
    found = baseline.check(report, kept)
    row = rows(report)["grad"]
    assert found.explanations == "moved"
    assert row.difference == pytest.approx(1 / 3, abs=1e-3)
    assert "the size alone" in row.reason
    assert rows(report, "cosine")["grad"].verdict == "equivalent"


def test_predictions_move(kept: Path) -> None:
    first = baseline.read(kept)
    moved = [
        replace(e, target=replace(e.target, probability=min(1.0, e.target.probability + 0.1))) for e in first.records
    ]
    old = replace(first, records=moved)
    _, report = ran(toy(), pictures(8))
    found = baseline.check(report, old)
    assert (found.explanations, found.predictions) == ("equivalent", "moved")
    row = rows(report, "probability")[""]
    assert row.difference == pytest.approx(0.1)
    assert row.n == 8


def test_another_top_class_is_a_moved_prediction_and_no_comparable_map(kept: Path) -> None:
    first = baseline.read(kept)
    other = [replace(e, target=replace(e.target, index=(e.target.index + 1) % 5)) for e in first.records]
    _, report = ran(toy(), pictures(8))
    found = baseline.check(report, replace(first, records=other[:8] + first.records[8:]))
    assert found.predictions == "moved"
    row = rows(report, "top1")[""]
    assert (row.difference, row.n, row.verdict) == (0.5, 8, "moved")
    assert (rows(report)["grad"].n, rows(report)["grad"].missing) == (4, 4)
    assert len(report.config["baseline"]["only_here"]) == len(report.config["baseline"]["only_in_baseline"]) == 8
    _, report = ran(toy(), pictures(8))
    baseline.check(report, replace(first, records=other))
    assert not all(gate.passed for gate in report.gates)


def test_nothing_in_common_fails_the_gate(kept: Path) -> None:
    _, report = ran(toy(), pictures(3, seed=9))
    found = baseline.check(report, kept)
    assert (found.explanations, found.predictions) == ("cannot tell", "cannot tell")
    assert [gate.passed for gate in report.gates] == [False]


def test_no_common_map_fails_the_gate_though_predictions_agree(kept: Path) -> None:
    _, report = ran(toy(), pictures(8), ["gi"])
    found = baseline.check(report, kept)
    assert (found.explanations, found.predictions) == ("cannot tell", "equivalent")
    assert [(g.expression, g.passed) for g in report.gates][-1] == ("baseline.l2", False)
    assert all(g.passed for g in report.gates[:-1])


def test_one_image_is_enough_for_what_it_shows(first: tuple[Prepared, Report], tmp_path: Path) -> None:
    _, report = ran(toy(), pictures(8)[:1])
    path = tmp_path / "one.json"
    path.write_bytes(baseline.slim(report))
    for share, verdict in ((0.0, "equivalent"), (0.05, "moved")):
        prepared, report = ran(toy(share), pictures(8)[:1])
        baseline.check(report, path, floor=noise_floor(prepared.request, report.records))
        assert rows(report)["grad"].verdict == verdict
        assert "this image" in rows(report)["grad"].reason


def test_targets_of_an_image_are_averaged_first(tmp_path: Path) -> None:
    _, report = ran(toy(), pictures(6), ["grad"], target=["0", "1"])
    path = tmp_path / "two.json"
    path.write_bytes(baseline.slim(report))
    _, later = ran(toy(0.05), pictures(6), ["grad"], target=["0", "1"])
    baseline.check(later, path)
    pairs = [(unsketch(a.heatmap.sketch, a.heatmap.sketch_scale), unsketch(b.heatmap.sketch, b.heatmap.sketch_scale))
             for a, b in zip(report.records, later.records, strict=True)]  # fmt: skip
    row = rows(later)["grad"]
    assert row.n == 6
    assert row.difference == pytest.approx(np.mean([relative_l2(a, b) for a, b in pairs]))


# -- noise floor -------------------------------------------------------------------------------------------------


def test_the_floor_is_measured(first: tuple[Prepared, Report]) -> None:
    usual = torch.get_num_threads()
    found = noise_floor(first[0].request, first[1].records)
    assert torch.get_num_threads() == usual
    by = {(f.change, f.method.split(":")[0] if f.method else None, f.quantity): f for f in found}
    seeds = by["seed", "sg", "l2"]
    assert seeds.value > 0.1
    assert seeds.n == 16
    assert ("seed", "grad", "l2") not in by
    assert ("seed", None, "probability") not in by
    for change in ("threads", "layout"):
        for method in ("grad", "sg"):
            assert by[change, method, "l2"].value < 1e-3
            assert by[change, method, "l2"].n == 8
        assert by[change, None, "top1"].value == 0


def test_the_seed_floor_is_the_distance_of_the_next_two_seeds(first: tuple[Prepared, Report]) -> None:
    _, again = ran(toy(), pictures(8), ["sg:n=5", "sg:n=5,seed=1", "sg:n=5,seed=2"])
    maps = {(r.image.sha256, r.method.parameters["seed"]): unsketch(r.heatmap.sketch, r.heatmap.sketch_scale)
            for r in again.records}  # fmt: skip
    images = {image for image, _ in maps}
    far = [relative_l2(maps[image, 0], maps[image, seed]) for image in images for seed in (1, 2)]
    found = noise_floor(first[0].request, first[1].records)
    assert next(f for f in found if f.change == "seed" and f.quantity == "l2").value == pytest.approx(max(far))


def test_repeats_of_calls_that_differ_by_seed_are_not_taken_for_each_other() -> None:
    prepared, report = ran(toy(), pictures(4), ["sg:n=5,seed=0", "sg:n=5,seed=1"])
    found = noise_floor(prepared.request, report.records)
    seeds = [f for f in found if f.change == "seed" and f.quantity == "l2"]
    assert len(seeds) == 2
    assert all(f.value > 0.1 and f.n == 8 for f in seeds)


def test_folding_is_measured_either_way() -> None:
    prepared, report = ran(toy(fold=False), pictures(3), ["grad"])
    assert {f.change for f in noise_floor(prepared.request, report.records)} == {"threads", "folding"}


def test_a_named_model_is_loaded_anew_without_folding(lite0: attrsens.Classifier) -> None:
    again = lite0.reload(fold=False)
    assert again.id == lite0.id
    assert again.fold is False
    assert lite0.fold is True


def test_a_floor_that_is_kept_costs_nothing_again(tmp_path: Path) -> None:
    from attrsens.engine.compute import Tally

    spent = []
    for _ in range(2):
        prepared = prepare(pictures(3), model=toy(), method=["grad", "sg:n=5"], cache_dir=tmp_path)
        report, tally = execute(prepared), Tally()
        found = noise_floor(prepared.request, report.records, prepared.store, tally)
        spent.append((tally.passes.forward, found))
    # 3 predictions and 3 x (1 + 5) maps with other threads and another layout, 2 x 15 passes with other seeds
    assert (spent[0][0], spent[1][0]) == (2 * (3 + 18) + 30, 0)
    assert spent[0][1] == spent[1][1]


def test_threads_come_back_after_an_error() -> None:
    usual = torch.get_num_threads()
    with threads(usual + 1):
        assert torch.get_num_threads() == usual + 1
    with pytest.raises(KeyError), threads(usual + 1):
        raise KeyError
    assert torch.get_num_threads() == usual


def test_the_margin_is_the_largest_floor_and_never_below_the_least(kept: Path) -> None:
    expression = baseline.read(kept).records[0].method.expression
    _, report = ran(toy(), pictures(8))
    floor = [
        Floor("toy", expression, "l2", change, "", value, 8) for change, value in (("threads", 0.3), ("seed", 0.2))
    ]
    floor += [Floor("other", expression, "l2", "seed", "", 0.9, 8), Floor("toy", None, "probability", "x", "", 1e-9, 8)]
    baseline.check(report, kept, floor=floor)
    assert rows(report)["grad"].margin == 0.3
    assert rows(report)["sg"].margin == drift.MARGINS["l2"]
    assert rows(report, "probability")[""].margin == drift.MARGINS["probability"]


@pytest.mark.parametrize("margin", [0.0, -1.0, 2.0, float("nan"), float("inf")])
def test_a_margin_is_a_size(kept: Path, margin: float) -> None:
    with pytest.raises(AttrsensError, match="margin must be above 0 and below 2"):
        check_options(kept, margin, False)


def test_unchanged_repeats_raise_no_alarm(tmp_path: Path) -> None:
    """100 repeats of random subsets with another seed, batch, thread count or form: at most 5 % are stated.
    benchmarks/gate.py measures it on a real network."""
    rng = np.random.default_rng(0)
    pool = pictures(20)
    prepared, everything = ran(toy(), pool)
    floor = noise_floor(prepared.request, everything.records)
    path = tmp_path / "all.json"
    path.write_bytes(baseline.slim(everything))
    whole, alarms = baseline.read(path), []
    for k in range(100):
        size = int(rng.choice([1, 2, 4, 8]))
        chosen = sorted(rng.choice(20, size, replace=False).tolist())
        old = replace(whole, records=[whole.records[2 * i + j] for i in chosen for j in (0, 1)])
        f = toy(batch=[1, 3, "auto"][k % 3], fold=k % 4 > 0)
        with threads(1 + k % 3):
            _, report = ran(f, [pool[i] for i in chosen], ["grad", f"sg:n=5,seed={k}"])
        mine = [replace(f, method=f.method and f.method.replace("seed=0", f"seed={k}")) for f in floor]
        found = baseline.check(report, old, floor=mine)
        alarms.append("moved" in (found.explanations, found.predictions))
    assert sum(alarms) <= 5


# -- causes ------------------------------------------------------------------------------------------------------


def test_what_differs_is_named_likeliest_first(kept: Path) -> None:
    old = baseline.read(kept)
    method = replace(old.records[0].method, version=7)
    then = replace(
        old,
        records=[replace(old.records[0], method=method), *old.records[1:]],
        config={**old.config, "fold": False, "precision": "bf16"},
        provenance=replace(
            old.provenance, versions={**old.provenance.versions, "torch": "1.13.1", "attrsens": "0.0.9"}, threads=77
        ),
    )
    _, report = ran(toy(0.05), pictures(8))
    now = report.provenance.versions
    found = baseline.check(report, then).causes
    assert found[0].startswith("weights, architecture or preprocessing of toy")
    assert found[1] == "method grad: version 1, 7 before, 1 now"
    assert found[2:4] == [f"attrsens 0.0.9 before, {now['attrsens']} now", f"torch 1.13.1 before, {now['torch']} now"]
    assert found[4:6] == ["precision bf16 before, fp32 now", "fold False before, True now"]
    assert found[6].startswith("threads 77 before")
    patch = replace(old.provenance, versions={**now, "torch": ".".join(now["torch"].split(".")[:2]) + ".99"})
    assert not baseline.causes(replace(old, provenance=patch), ran(toy(), pictures(1))[1])


def test_weights_are_told_from_preprocessing(kept: Path) -> None:
    _, report = ran(toy(0.05), pictures(2))
    old = baseline.read(kept)
    (then,), (now,) = {e.model.id for e in old.records}, {r.model.id for r in report.records}
    report.provenance.weights = {now: "a" * 64}
    same = baseline.causes(replace(old, provenance=replace(old.provenance, weights={then: "a" * 64})), report)
    other = baseline.causes(replace(old, provenance=replace(old.provenance, weights={then: "b" * 64})), report)
    assert same[0] == "architecture, preprocessing or classes of toy (its weights are the same)"
    assert other[0] == f"weights of toy: sha256 {'b' * 12} before, {'a' * 12} now"


# -- files -------------------------------------------------------------------------------------------------------


def test_a_slim_baseline_is_a_small_report_that_says_nothing_of_the_machine(tmp_path: Path) -> None:
    from PIL import Image

    for i, picture in enumerate(pictures(4)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    _, report = ran(toy(), [str(tmp_path)])
    data = baseline.slim(report)
    Draft202012Validator(json_schema()).validate(json.loads(data))
    assert str(tmp_path).encode() not in data
    assert {record["image"]["path"] for record in json.loads(data)["records"]} == {f"{i}.png" for i in range(4)}
    assert len(data) < 4096 + 3200 * len(report.records)
    assert sum(line.startswith(b'{"key"') for line in data.splitlines()) == 8  # a line a record
    path = tmp_path / "b.json"
    path.write_bytes(data)
    assert baseline.slim(report) == data
    assert [e.heatmap.sketch for e in baseline.read(path).records] == [r.heatmap.sketch for r in report.records]


def test_any_report_is_a_baseline(first: tuple[Prepared, Report], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(to_json(first[1]))
    _, report = ran(toy(), pictures(8))
    assert baseline.check(report, path).explanations == "equivalent"
    assert baseline.read(path).sha256 == report.config["baseline"]["sha256"]


def spoilt(change: Any) -> Any:
    def write(path: Path) -> None:
        data = json.loads(path.read_bytes())
        change(data)
        path.write_text(json.dumps(data))

    return write


def sketched(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f2").tobytes()).decode()


HOSTILE = {
    "empty": (lambda p: p.write_bytes(b""), "not an attrsens report"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-100]), "not an attrsens report"),
    "no json": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)), "not an attrsens report"),
    "foreign": (lambda p: p.write_text('{"results": [1, 2]}'), "not an attrsens report"),
    "a list": (lambda p: p.write_text("[]"), "not an attrsens report"),
    "deep": (lambda p: p.write_text('{"x":' + "[" * 200000 + "]" * 200000 + "}"), "not an attrsens report"),
    "deep inside": (
        lambda p: p.write_bytes(
            p.read_bytes().replace(b'"precision": "fp32"', b'"x": ' + b"[" * 99999 + b"]" * 99999, 1)
        ),
        "not an attrsens report",
    ),
    "later": (spoilt(lambda d: d.update(schema_version=2)), "schema version 2, this attrsens reads 1"),
    "true": (spoilt(lambda d: d.update(schema_version=True)), "not an attrsens report"),
    "no records": (spoilt(lambda d: d.update(records=[])), "holds no record"),
    "no provenance": (spoilt(lambda d: d.pop("provenance")), "damaged"),
    "wrong type": (spoilt(lambda d: d["records"][0]["target"].update(index="1")), "damaged"),
    "infinite": (
        lambda p: p.write_bytes(p.read_bytes().replace(b'"noise": 0.0', b'"noise": 1e999', 1)),
        "not an attrsens report",
    ),
    "NaN": (lambda p: p.write_bytes(p.read_bytes().replace(b'"noise": 0.0', b'"noise": NaN', 1)), "not an attrsens"),
    "probability": (spoilt(lambda d: d["records"][3]["target"].update(probability=1.5)), "record 3"),
    "short sketch": (spoilt(lambda d: d["records"][1]["heatmap"].update(sketch="AAAA")), "1568 bytes, not 3"),
    "no base64": (spoilt(lambda d: d["records"][1]["heatmap"].update(sketch="é" * 2092)), "record 1"),
    "non-finite sketch": (
        spoilt(lambda d: d["records"][1]["heatmap"].update(sketch=sketched(np.full(784, np.nan)))),
        "finite",
    ),
    "endless scale": (spoilt(lambda d: d["records"][1]["heatmap"].update(sketch_scale=1e308)), "finite scale"),
    "negative scale": (spoilt(lambda d: d["records"][1]["heatmap"].update(sketch_scale=-1.0)), "scale of 0 or more"),
    "huge": (lambda p: os.truncate(p, LIMIT + 1), "64 MiB"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "not a regular file"),
    "a pipe": (lambda p: (p.unlink(), os.mkfifo(p)), "not a regular file"),
    "absent": (lambda p: p.unlink(), "--update writes one"),
    "bad UTF-8": (lambda p: p.write_bytes(p.read_bytes().replace(b'"toy', b'"\xfft', 1)), "damaged"),
    "escapes": (
        spoilt(lambda d: d["records"][0]["heatmap"].update({"sketch": 5, "\x1b[31m\n": 1})),
        "damaged",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_baseline_is_one_line_and_exit_2(kept: Path, name: str) -> None:
    spoil, message = HOSTILE[name]
    spoil(kept)
    with pytest.raises(AttrsensError) as caught:
        check_options(kept, None, False)
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert type(caught.value).__name__ != "InputError"
    assert message in text
    assert text.startswith("baseline ")
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 700


def test_names_from_a_baseline_are_printed_without_their_tricks(kept: Path) -> None:
    spoilt(lambda d: d["records"][0]["image"].update(path="\x1b[2J\u202e\n" + "x" * 5000, sha256="f" * 64))(kept)
    _, report = ran(toy(), pictures(8))
    baseline.check(report, kept)
    (listed,) = report.config["baseline"]["only_in_baseline"]
    assert len(listed) <= 200
    assert listed.isprintable()


def test_options_go_together(kept: Path) -> None:
    check_options(None, None, False)
    for margin, update in ((0.1, False), (None, True)):
        with pytest.raises(AttrsensError, match="goes with --baseline"):
            check_options(None, margin, update)


def test_update_accepts(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared, report = ran(toy(0.05), pictures(8))
    before = kept.read_bytes()
    add_baseline(report, kept, update=False, prepared=prepared)
    assert kept.read_bytes() == before
    assert not all(gate.passed for gate in report.gates)
    said = capsys.readouterr().err
    assert "explanations moved" in said
    assert "differs between the runs: weights" in said
    prepared, report = ran(toy(0.05), pictures(8))
    spent = report.provenance.passes_run.forward
    add_baseline(report, kept, update=True, prepared=prepared)
    assert kept.read_bytes() == baseline.slim(report) != before
    assert not report.gates
    assert report.provenance.passes_run.forward > spent  # the floor's
    prepared, report = ran(toy(0.05), pictures(8))
    add_baseline(report, kept, prepared=prepared)
    assert report.gates
    assert all(gate.passed for gate in report.gates)


def test_update_makes_a_first_baseline_and_replaces_no_foreign_file(tmp_path: Path, kept: Path) -> None:
    prepared, report = ran(toy(), pictures(2))
    new = tmp_path / "new.json"
    check_options(new, None, True)
    add_baseline(report, new, update=True, prepared=prepared)
    assert len(baseline.read(new).records) == 4
    assert not report.comparisons
    foreign = tmp_path / "package.json"
    foreign.write_text('{"name": "mine"}')
    for call in (lambda: check_options(foreign, None, True), lambda: add_baseline(report, foreign, update=True)):
        with pytest.raises(AttrsensError, match="not an attrsens report"):
            call()
    assert foreign.read_text() == '{"name": "mine"}'
    HOSTILE["later"][0](kept)
    add_baseline(report, kept, update=True)
    assert baseline.read(kept).records
    with pytest.raises(AttrsensError, match="no such folder"):
        check_options(tmp_path / "nowhere" / "b.json", None, True)


def test_only_whole_runs_become_baselines(first: tuple[Prepared, Report], kept: Path) -> None:
    report = replace(first[1], provenance=replace(first[1].provenance, interrupted=True))
    before = kept.read_bytes()
    with pytest.raises(AttrsensError, match="was interrupted; a baseline holds whole runs"):
        add_baseline(report, kept, update=True)
    broken = Failure("img.png", "compute", "a map that is not finite", "toy")
    with pytest.raises(AttrsensError, match="1 failures, the first: a map that is not finite") as caught:
        add_baseline(replace(first[1], failures=[broken]), kept, update=True)
    assert caught.value.exit_code == 3
    assert kept.read_bytes() == before
    add_baseline(replace(first[1], failures=[replace(broken, stage="score")]), kept, update=True)


def test_the_same_run_says_the_same_twice(kept: Path) -> None:
    found = []
    for _ in range(2):
        prepared, report = ran(toy(0.02), pictures(8))
        baseline.check(report, kept, floor=noise_floor(prepared.request, report.records))
        data = to_data(report)
        data.pop("provenance")
        found.append(json.dumps(data))
    assert found[0] == found[1]


# -- the command -------------------------------------------------------------------------------------------------

NET = """
import sys
sys.path.insert(0, {tests!r})
import torch
from toys import SmallNet

def net():
    return SmallNet("reused")
"""


def test_compare_against_a_baseline_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Any
) -> None:
    from PIL import Image
    from safetensors.torch import save_file

    (tmp_path / "ournets.py").write_text(NET.format(tests=str(Path(__file__).parent)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for i, picture in enumerate(pictures(6)):
        Image.fromarray(picture).save(f"images/{i}.png")
    state = SmallNet("reused").state_dict()
    save_file(state, "weights.safetensors")
    command = ["compare", "images", "--model", "weights.safetensors", "--arch", "py:ournets:net", "--method", "grad"]
    command += ["--preprocess", "crop=16,mean=0.45,0.45,0.45,std=0.25,0.25,0.25", "--baseline", "kept.json", "--quiet"]
    code, _, err = run_cli(*command)
    assert code == 2
    assert err.count("\n") == 1
    assert "kept.json" in err
    assert "--update writes one" in err
    code, _, err = run_cli(*command, "--update")
    assert code == 0, err
    assert len(baseline.read("kept.json").records) == 6
    assert str(tmp_path).encode() not in Path("kept.json").read_bytes()
    code, out, err = run_cli(*command[:-1])
    assert code == 0, err
    assert "explanations equivalent, predictions equivalent" in err
    assert "equivalent" in out
    found = json.loads(Path("attrsens-out/report.json").read_text())
    Draft202012Validator(json_schema()).validate(found)
    assert {row["change"] for row in found["config"]["baseline"]["floor"]} == {"threads", "folding"}
    assert all(gate["passed"] for gate in found["gates"])
    generator = torch.Generator().manual_seed(0)
    weight = state["conv2.weight"]
    weight += 0.05 * weight.std() * torch.randn(weight.shape, generator=generator)
    save_file(state, "weights.safetensors")
    code, out, err = run_cli(*command)
    assert code == 1
    assert "gate failed: baseline.l2>" in err
    assert "differs between the runs: weights of weights: sha256" in err
    found = json.loads(Path("attrsens-out/report.json").read_text())
    assert found["config"]["baseline"]["explanations"] == "moved"
    assert run_cli(*command, "--update")[0] == 0
    assert run_cli(*command)[0] == 0
    Path("kept.json").write_text("{}")
    for more in ([], ["--update"]):
        code, _, err = run_cli(*command, *more)
        assert (code, err.count("\n")) == (2, 1)
        assert "not an attrsens report" in err
    code, _, err = run_cli("compare", "images", "--margin", "0.1")
    assert code == 2
    assert "goes with --baseline" in err


def test_models_of_one_name_are_refused(kept: Path) -> None:
    _, report = ran(toy(), pictures(1), ["grad"])
    twin = replace(report.records[0], model=replace(report.records[0].model, id="toy@other"))
    report.records.append(twin)
    with pytest.raises(AttrsensError, match="two models are called toy"):
        baseline.check(report, kept)


def test_models_that_share_a_class_are_measured_together() -> None:
    from attrsens.engine.prepare_compare import prepare_compare

    second = SmallNet("functional")
    with torch.no_grad():
        second.fc.bias.add_(torch.tensor([0.0, 9, 0, 0, 0]))  # another top class
    other = attrsens.Classifier(second, [0.45] * 3, [0.25] * 3, crop=16, device="cpu", name="other")
    prepared = prepare_compare(pictures(3), model=[toy(), other], method=["grad"], noise=[0.1], cache=False)
    report = execute(prepared)
    found = noise_floor(prepared.request, report.records)
    places = {(f.model, f.change) for f in found if f.quantity == "l2" and f.n == 3}
    assert places == {(m, c) for m in ("toy", "other") for c in ("threads", "layout")}
    assert all(f.value < 1e-3 for f in found)
