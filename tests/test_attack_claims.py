"""What an attack may claim: within its budget, against noise of its size, on every image, and where the class stays."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_api import picture
from test_attack import SIDE, Squares, attacked, distance, grey, marginal, one, pixels, shares, squares, values
from torch import Tensor
from toys import small, uniform

import attrsens
from attrsens.attacks._case import eight_bit
from attrsens.attacks._optimiser import _Best, _outcome, _Run
from attrsens.engine.aims import Value
from attrsens.engine.attack_noise import noisy_images
from attrsens.engine.attack_tables import BEGINNING, CHANGED, Tables
from attrsens.engine.claims import _warnings
from attrsens.engine.report import Record, Report
from attrsens.errors import AttrsensError
from attrsens.explainer import Explainer
from attrsens.models.batches import Passes

WEIGHT = 0.5 + uniform(3, SIDE, SIDE, seed=3)


def bright() -> np.ndarray:
    """A picture that the networks below tell from `grey` by its mean."""
    return np.asarray(grey() + np.uint8(60))


class Fragile(Squares):
    """`Squares`, whose logits of the bright picture, once it is touched, are of the other class, or `harm`."""

    def __init__(self, harm: float = 1e6) -> None:
        super().__init__(WEIGHT)
        self.harm = harm

    def forward(self, x: Tensor) -> Tensor:
        mean, home = x.detach().flatten(1).mean(1), float(pixels(bright()).mean())
        touched = (mean > 0.6) & ((mean - home).abs() > 1e-5)
        other = torch.where(touched, x.new_tensor(self.harm), x.new_zeros(()))
        return super().forward(x) + torch.stack([torch.zeros_like(other), other], 1)


class Rooted(Squares):
    """Logits (sum w x^1.5, 0): a black pixel has an infinite second derivative."""

    def forward(self, x: Tensor) -> Tensor:
        first = (self.weight * x.pow(1.5)).flatten(1).sum(1) + 100
        return torch.stack([first, torch.zeros_like(first)], 1)


def classifier(net: torch.nn.Module) -> attrsens.Classifier:
    return attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu")


def row(report: Report, quantity: str, **group: Any) -> Any:
    found = [r for r in report.aggregates if r.quantity == quantity and all(r.group[k] == v for k, v in group.items())]
    assert len(found) == 1, quantity
    return found[0]


# -- every image counts ------------------------------------------------------------------------------------------


def test_an_image_on_which_nothing_was_found_counts_as_no_damage_beside_noise() -> None:
    f = classifier(Fragile())
    images = [*(grey(seed) for seed in range(6)), bright()]
    report = attrsens.attack(images, model=f, kind="random", attack={"n": 1, "eps": 0.2}, cache=False)
    still = attacked(report)[-1]
    assert still.scores["l2"].value == 0
    assert still.scores["original_distance"].floor == pytest.approx(0, abs=1e-6)
    assert still.scores["prediction_kept"].controls == {"noise": 1.0}
    assert "nothing changed" in still.scores["original_distance"].definition
    damage, floor = row(report, "original_distance"), row(report, "original_distance (floor)")
    assert damage.n == floor.n == 7
    (beside,) = [c for c in report.comparisons if c.quantity == "original_distance"]
    assert beside.n == 7
    assert beside.difference == pytest.approx(damage.mean - floor.mean)
    aimed = attrsens.attack(bright(), model=f, attack={"steps": 2, "target_shape": "ring"}, cache=False)
    found = attacked(aimed)[0].scores
    assert found["l2"].value == 0
    assert found["target_distance"].floor == pytest.approx(found["target_distance_before"].value, abs=1e-6)
    assert all(s.floor == pytest.approx(s.value) for s in attacked(aimed)[0].similarities if s.value is not None)


def curve_records() -> list[Record]:
    f, _ = squares()
    attack = {"eps": [0.02, 0.05], "steps": 2, "learning_rate": 0.01}
    report = attrsens.attack([grey(s) for s in range(3)], model=f, kind="untargeted", attack=attack, cache=False)
    return copy.deepcopy(report.records)


def table(records: list[Record]) -> dict[tuple[str, float | None], Any]:
    rows = Tables(records, {}).aggregates()
    return {(r.quantity, r.group["budget"].get("eps")): r for r in rows}


def test_an_attack_that_lost_the_class_shows_nothing_in_any_row() -> None:
    records = curve_records()
    lost = [r for r in records if r.attack][1]
    lost.scores["prediction_kept"].value = 0.0
    assert lost.attack
    eps = lost.attack.budget["eps"]
    assert eps == 0.05
    rows = table(records)
    for name in ("original_distance", "original_distance (floor)", "spearman", "spearman (floor)"):
        assert (rows[name, eps].n, rows[name, eps].missing) == (2, 1), name
        assert rows[name, eps].reasons == {CHANGED: 1}
    for name in ("damage_area", "damage_area (floor)"):
        assert (rows[name, None].n, rows[name, None].reasons) == (2, {CHANGED: 1})
    assert rows["original_distance (best)", eps].reasons == {CHANGED: 1}
    assert rows["prediction_kept", eps].mean == pytest.approx(2 / 3)
    noise = [c for c in Tables(records, {}).comparisons() if c.quantity == "original_distance"]
    assert {(c.a["budget"]["eps"], c.n, c.missing) for c in noise} == {(0.05, 2, 1), (0.02, 3, 0)}
    assert lost.scores["original_distance"].value is not None, "the record keeps its number"


# -- budgets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "eps", "more"),
    [
        ("untargeted", 0.03, {"steps": 6, "learning_rate": 0.01}),
        ("topk", 0.03, {"steps": 6, "learning_rate": 0.01, "k": 10}),
        ("random", 0.1, {"n": 3}),
        ("random", 0.1, {"n": 3, "draws": "uniform"}),
        ("random", 0.01, {"n": 9, "draws": "walk", "step": 0.006}),
        ("random", 8 / 255, {"n": 3}),
        ("random", 0.0314, {"n": 3}),
    ],
)
def test_the_written_image_keeps_the_budget_that_is_claimed(kind: str, eps: float, more: dict[str, Any]) -> None:
    f, _ = squares()
    record, written = one(grey(), f, kind, eps=eps, **more)
    most = np.abs(written.astype(int) - grey().astype(int)).max()
    assert most == int(255 * eps + 1e-3), "all of it, and no more"
    assert values(record)["linf"] <= eps + 1e-7
    assert record.attack
    assert f"within eps {eps:.4g} the map" in record.attack.claim


def test_rounding_keeps_to_the_nearest_level_within_eps() -> None:
    clean = torch.tensor([0, 10, 100, 255, 100.4]) / 255
    moved = (clean + torch.tensor([7.6, -7.6, 3.4, 9, 0.3]) / 255).clamp(0, 1)
    assert (eight_bit(moved, clean, 7.65 / 255) * 255).round().tolist() == [7, 3, 103, 255, 101]
    assert (eight_bit(moved, clean) * 255).round().tolist() == [8, 2, 103, 255, 101]
    assert (eight_bit(moved, clean, 0.1 / 255) * 255).round().tolist() == [0, 10, 100, 255, 100]


def test_what_moves_pixels_as_well_states_how_far_all_of_it_went() -> None:
    f, _ = squares()
    record, _ = one(grey(), f, "untargeted", perturbation="delta-stadv", steps=3)
    assert record.attack
    assert f"(Linf {values(record)['linf']:.4g} in all)" in record.attack.claim


@pytest.mark.parametrize(
    ("kind", "attack", "message"),
    [
        ("untargeted", {"perturbation": "stadv", "eps": "2/255,8/255"}, "several eps change nothing"),
        ("manipulate", {"perturbation": "stadv-recolor", "eps": "2/255,8/255"}, "several eps change nothing"),
        ("boundary", {"eps": "1,2"}, "several make no curve"),
        ("random", {"eps": 0.001}, "less than 1/255"),
        ("untargeted", {"eps": [0.0, 0.003, 0.01]}, "eps 0.003 is less than 1/255"),
    ],
)
def test_budgets_without_a_meaning_are_refused(kind: str, attack: dict[str, Any], message: str) -> None:
    with pytest.raises(AttrsensError, match=message):
        attrsens.attack(picture(), model=small(), kind=kind, attack=attack)


def test_budgets_without_a_meaning_are_mistakes_of_the_command_line(run_cli: Any) -> None:
    code, _, err = run_cli("attack", "sample:coffee", "--kind", "boundary", "--eps", "1,2")
    assert code == 2
    assert "give one" in err


def test_what_a_smaller_budget_found_counts_under_a_larger_one() -> None:
    records = curve_records()
    for record in records:
        if record.attack:
            small_budget = record.attack.budget["eps"] == 0.02
            score = record.scores["original_distance"]
            score.value, score.controls["noise"] = (0.4, 0.1) if small_budget else (0.2, 0.15)
    rows = table(records)
    assert rows["original_distance", 0.05].mean == pytest.approx(0.2)
    assert rows["original_distance (best)", 0.05].mean == pytest.approx(0.4)
    assert rows["original_distance (best) (floor)", 0.05].mean == pytest.approx(0.1), "of the attack that counts"
    assert rows["damage_area", None].mean == pytest.approx((0.02 * 0.4 / 2 + 0.03 * 0.4) / 0.05)


def test_a_curve_of_several_perturbations_begins_where_it_was_measured() -> None:
    f, _ = squares()
    plain = {"steps": 2, "perturbation": "delta-stadv", "learning_rate": 0.01}
    images, options = [grey(s) for s in range(2)], {"model": f, "kind": "untargeted", "cache": False}
    without = attrsens.attack(images, attack=plain | {"eps": [0.02, 0.05]}, **options)
    area = row(without, "damage_area")
    assert (area.mean, area.reasons) == (None, {BEGINNING: 2})
    eps = [0.0, 0.02, 0.05]
    measured = attrsens.attack(images, attack=plain | {"eps": eps}, **options)
    areas = []
    for image in {r.image.sha256 for r in measured.records}:
        mine = [values(r)["original_distance"] for r in attacked(measured) if r.image.sha256 == image]
        assert mine[0] > 1e-6, "a flow of its own"
        areas.append(np.trapezoid(np.maximum.accumulate(mine), eps) / eps[-1])
    assert row(measured, "damage_area").mean == pytest.approx(np.mean(areas), rel=1e-6)


# -- noise of the same size --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "size"), [(128, 0.2), (128, 0.4), (128, 3.0), (255, 2.0), (0, 30.0)])
def test_noise_has_the_norm_after_it_was_cut_and_rounded(level: int, size: float) -> None:
    clean = torch.full((3, 224, 224), level / 255)
    for noisy in noisy_images(clean, "an image", size):
        assert float((noisy - clean).norm()) == pytest.approx(size, rel=0.01)
        assert torch.equal((noisy * 255).round() / 255, noisy)


def test_noise_as_large_as_can_be() -> None:
    clean = torch.zeros(3, 4, 4)
    noisy = noisy_images(clean, "an image", 100.0)[0]
    assert set(noisy.unique().tolist()) == {0.0, 1.0}


def test_the_norm_that_noise_has_is_told() -> None:
    f, _ = squares()
    record, _ = one(grey(), f, "untargeted", eps=0.05, steps=4, learning_rate=0.01)
    score = record.scores["l2"]
    assert score.controls["noise"] == pytest.approx(score.value, rel=0.01)
    assert score.floor == score.controls["noise"]


# -- one image's numbers are its own -----------------------------------------------------------------------------


@pytest.mark.parametrize("perturbation", ["delta", "stadv"])
def test_an_image_without_a_finite_slope_fails_alone(perturbation: str) -> None:
    f = classifier(Rooted(WEIGHT))
    black = grey()
    black[2, 3] = 0
    options: dict[str, Any] = {"model": f, "kind": "topk", "cache": False}
    options["attack"] = {"steps": 3, "k": 10, "perturbation": perturbation, "learning_rate": 0.01}
    broken = attrsens.attack([grey(1), black, grey(2)], **options)
    whole = attrsens.attack([grey(1), grey(3), grey(2)], **options)
    (failure,) = broken.failures
    assert (failure.image, failure.stage) == ("array-1", "attack")
    assert "not finite" in failure.message
    assert "internal" not in failure.message
    _alike(broken, whole, [grey(1), grey(2)])


def test_an_image_whose_logits_are_not_finite_once_it_is_touched_fails_alone() -> None:
    options: dict[str, Any] = {"kind": "untargeted", "attack": {"steps": 3, "learning_rate": 0.01}, "cache": False}
    f = classifier(Fragile(torch.nan))
    broken = attrsens.attack([grey(1), bright(), grey(2)], model=f, **options)
    whole = attrsens.attack([grey(1), grey(3), grey(2)], model=f, **options)
    assert [failure.image for failure in broken.failures] == ["array-1"]
    _alike(broken, whole, [grey(1), grey(2)])


def _alike(a: Report, b: Report, images: list[np.ndarray]) -> None:
    """Whether two reports say the same of images, to the last bit."""
    for image in images:
        mine, other = ([r for r in attacked(report) if _is(r, report, image)] for report in (a, b))
        assert len(mine) == len(other) == 1
        assert values(mine[0]) == values(other[0])
        assert mine[0].attack == other[0].attack


def _is(record: Record, report: Report, image: np.ndarray) -> bool:
    clean = next(i for i, r in enumerate(report.records) if not r.attack and r.image.sha256 == record.image.sha256)
    return np.array_equal(report.attributions[clean].input, image)


# -- what an attack was after ------------------------------------------------------------------------------------


def test_the_share_of_the_top_is_reported_of_the_written_image() -> None:
    f, weight = squares()
    record, written = one(grey(), f, "topk", k=1000, eps=0.1, steps=40, learning_rate=0.01)
    before, after = (shares(weight.numpy() * pixels(x)) for x in (grey(), written))
    top = np.argsort(-before.ravel(), kind="stable")[: SIDE * SIDE // 2]
    found = record.scores
    assert found["top_share"].value == pytest.approx(after.ravel()[top].sum(), rel=1e-5)
    assert found["top_share_before"].value == pytest.approx(before.ravel()[top].sum(), rel=1e-5)
    assert found["top_share"].details == {"k": 32}
    assert "on the 32 largest pixels" in found["top_share"].definition
    assert found["top_share"].floor is not None
    assert found["top_share"].value < found["top_share"].floor < found["top_share_before"].value + 0.02
    assert record.attack
    claimed = f"top 32 pixels hold at most {found['top_share'].value:.3f} of it ({found['top_share_before'].value:.3f}"
    assert claimed in record.attack.claim
    assert "centre_distance" not in found


def test_the_way_of_the_centre_is_reported_of_the_written_image() -> None:
    f, weight = squares()
    images = [grey(seed) for seed in range(2)]
    attack = {"eps": 0.1, "steps": 40, "learning_rate": 0.01}
    report = attrsens.attack(
        images, model=f, kind="centre", attack=attack, cache=False, fail_if="centre_distance (floor)>0.2"
    )
    assert [gate.passed for gate in report.gates] == [True]
    record = attacked(report)[0]
    written = next(a.input for a, r in zip(report.attributions, report.records, strict=True) if r.attack)

    def centre(image: np.ndarray) -> np.ndarray:
        h = shares(weight.numpy() * pixels(image))
        return np.array([h.sum(1) @ np.arange(SIDE), h.sum(0) @ np.arange(SIDE)])

    score = record.scores["centre_distance"]
    assert score.value == pytest.approx(np.linalg.norm(centre(written) - centre(images[0])), rel=1e-4)
    assert score.floor is not None
    assert score.floor < score.value / 3
    assert record.attack
    assert f"centre moves by at least {score.value:.3g} px" in record.attack.claim
    assert row(report, "centre_distance").n == row(report, "centre_distance (floor)").n == 2
    assert any(c.quantity == "centre_distance" and c.b.get("control") == "noise" for c in report.comparisons)


@pytest.mark.parametrize(
    ("kind", "name", "value", "noise", "warned"),
    [
        ("topk", "top_share", 0.3, 0.2, True),
        ("topk", "top_share", 0.2, 0.3, False),
        ("centre", "centre_distance", 1.0, 2.0, True),
        ("centre", "centre_distance", 2.0, 1.0, False),
        ("manipulate", "target_distance", 0.3, 0.2, True),
        ("untargeted", "original_distance", 0.3, 0.2, False),
    ],
)
def test_noise_is_held_against_what_the_attack_was_after(
    kind: str, name: str, value: float, noise: float, warned: bool
) -> None:
    found = {
        "original_distance": Value("original_distance", 0.5, [0.1]),
        "prediction_kept": Value("prediction_kept", 1.0),
    }
    found[name] = Value(name, value, [noise])
    call = SimpleNamespace(name=kind, parameters={"steps": 3})
    measured: Any = SimpleNamespace(raws=1, signal=1.0, notes={}, fading=False, curve=[])
    told = _warnings(SimpleNamespace(call=call), measured, found)  # type: ignore[arg-type]
    assert any(f"({name} " in warning for warning in told) == warned


# -- signs of a weak attack --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "more"), [("topk", {"k": 20}), ("untargeted", {})])
def test_an_objective_that_hardly_falls_is_a_sign_of_a_masked_slope(kind: str, more: dict[str, Any]) -> None:
    f = small()
    masked, clear = (one(picture(), f, kind, beta=beta, steps=5, eps=0.03, **more)[0] for beta in (1e6, 100))
    told = [any("hardly fell" in warning for warning in r.attack.warnings) for r in (masked, clear) if r.attack]
    assert told == [True, False]
    for record in (masked, clear):
        assert record.attack
        assert record.attack.signal is not None
        assert record.attack.signal > 0
        assert record.attack.notes["objective_start"] in record.attack.curve[:2]


def _run(values: list[float], kept: list[int]) -> _Run:
    return _Run([torch.tensor([v]) for v in values], [torch.tensor([bool(k)]) for k in kept])


def _of_runs(*runs: _Run) -> Any:
    best = _Best(torch.zeros(1, 3, 2, 2), torch.tensor([0.0]), [], torch.tensor([True]))
    return _outcome(0, [], best, runs, torch.zeros(1), Passes())


def test_the_curve_is_that_of_the_run_that_gave_the_image() -> None:
    other, winner = _run([3.0, 2.0, 0.5], [1, 1, 0]), _run([3.0, 1.0, 1.5], [1, 1, 1])
    for runs in ((other, winner), (winner, other)):
        outcome = _of_runs(*runs)
        assert outcome.curve == [3.0, 1.0, 1.5]
        assert outcome.notes["objective_start"] == 3.0


def test_steps_that_lose_the_class_are_no_progress() -> None:
    falling = [30.0 - i for i in range(30)]
    assert not _of_runs(_run(falling, [1] * 30)).fading
    assert _of_runs(_run(falling, [1] * 15 + [0] * 15)).fading


def test_the_objective_of_the_returned_image_is_on_the_curve() -> None:
    f = marginal(grey(), 0.02)
    record, written = one(
        grey(), f, "untargeted", eps=0.05, steps=30, learning_rate=0.005, prediction_weight=0.0, restarts=3
    )
    assert record.attack
    best = record.attack.notes["objective"]
    assert best in record.attack.curve
    h = [shares(WEIGHT.numpy() * pixels(x)) for x in (grey(), written)]
    assert 1 - distance(*h) == pytest.approx(best, rel=1e-2)


# -- a search at random ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", ["signs", "walk"])
def test_candidates_are_not_held_all_at_once(draws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    many = Explainer.many

    def counted(self: Explainer, images: Any) -> Any:
        sizes.append(len(images))
        return many(self, images)

    monkeypatch.setattr(Explainer, "many", counted)
    written = []
    for batch in (4, 64):
        _, image = one(picture(), small(batch=batch), "random", draws=draws, n=50, eps=0.03)
        written.append(image)
    assert sizes == [4] * 12 + [2, 50]
    assert np.array_equal(*written)
