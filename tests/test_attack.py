"""Attacks on explanations: known optima on toy networks, fair claims, and what surrounds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_api import picture
from torch import Tensor, nn
from toys import Linear, SmallNet, draw, small, uniform

import attrsens
from attrsens.engine.report import Record, Report
from attrsens.engine.verbs import Interrupted
from attrsens.errors import AttrsensError
from attrsens.models.surgery import relu_as

SIDE = 8


class Squares(nn.Module):
    """Logits (sum w x^2 / 2 + 100, 0): the gradient of the first is w x, and the class never changes."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        first = (self.weight * x.square()).flatten(1).sum(1) / 2 + 100
        return torch.stack([first, torch.zeros_like(first)], 1)


def squares() -> tuple[attrsens.Classifier, Tensor]:
    weight = 0.5 + uniform(3, SIDE, SIDE, seed=3)
    return attrsens.Classifier(Squares(weight), [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu"), weight


def grey(seed: int = 0) -> np.ndarray:
    """A picture whose pixels are far from black and white."""
    return (80 + uniform(SIDE, SIDE, 3, seed=seed) * 90).to(torch.uint8).numpy()


def pixels(image: np.ndarray) -> np.ndarray:
    return image.transpose(2, 0, 1).astype(np.float64) / 255


def shares(gradient: np.ndarray) -> np.ndarray:
    size = np.abs(gradient).sum(0)
    return size / size.sum()


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(1 - (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))


def attacked(report: Report) -> list[Record]:
    return [record for record in report.records if record.attack]


def values(record: Record) -> dict[str, float]:
    return {name: float(score.value) for name, score in record.scores.items() if score.value is not None}


def one(image: Any, model: Any, kind: str, **attack: Any) -> tuple[Record, np.ndarray]:
    """The record of one attack on one gradient map, and the written image."""
    report = attrsens.attack(image, model=model, method="grad", kind=kind, attack=attack, cache=False)
    assert not report.failures
    place = next(i for i, record in enumerate(report.records) if record.attack)
    return report.records[place], report.attributions[place].input


# -- known optima ------------------------------------------------------------------------------------------------


def test_a_target_within_reach_is_reached(tmp_path: Path) -> None:
    f, weight = squares()
    image, eps = grey(), 0.08
    there = pixels(image) + eps * 0.9 * (2 * uniform(3, SIDE, SIDE, seed=5).numpy() - 1)
    goal = shares(weight.numpy() * there)
    np.save(tmp_path / "goal.npy", goal.astype(np.float32))
    plain = {"target_map": str(tmp_path / "goal.npy"), "regulariser": 0, "learning_rate": 0.003, "steps": 400}
    record, written = one(image, f, "manipulate", eps=eps, **plain)
    found = values(record)
    own = shares(weight.numpy() * pixels(image))
    assert found["target_distance_before"] == pytest.approx(distance(own, goal), rel=1e-4)
    assert found["target_distance"] < found["target_distance_before"] / 200
    now = shares(weight.numpy() * pixels(written))
    assert found["target_distance"] == pytest.approx(distance(now, goal), rel=0.05, abs=1e-6)
    assert found["original_distance"] == pytest.approx(distance(now, own), rel=1e-3)
    assert found["linf"] <= eps + 1e-6
    assert found["linf"] == pytest.approx(np.abs(pixels(written) - pixels(image)).max(), abs=1e-6)
    assert found["l2"] == pytest.approx(np.sqrt(((pixels(written) - pixels(image)) ** 2).sum()), rel=1e-5)
    assert record.attack
    assert record.attack.warnings == []


def test_the_top_leaves_as_far_as_the_budget_lets_it() -> None:
    """Gradient w x: the share of the top is least where its pixels fall and all others rise by the whole budget."""
    f, weight = squares()
    image, eps, k = grey(), 25 / 255, 10
    record, written = one(image, f, "topk", eps=eps, k=k, learning_rate=0.01, steps=150)
    x, w = pixels(image), weight.numpy().astype(np.float64)
    top = np.argsort(-(w * x).sum(0).ravel(), kind="stable")[:k]
    mask = np.zeros(SIDE * SIDE)
    mask[top] = 1
    mask = mask.reshape(SIDE, SIDE)
    best = shares(w * np.where(mask > 0, x - eps, x + eps))
    assert record.attack
    assert min(record.attack.curve) == pytest.approx((best * mask).sum(), rel=1e-4)
    assert ((shares(w * pixels(written))) * mask).sum() == pytest.approx((best * mask).sum(), rel=0.01)


def test_the_centre_moves_towards_an_edge_and_further_than_by_noise() -> None:
    f, weight = squares()
    record, written = one(grey(), f, "centre", eps=25 / 255, learning_rate=0.01, steps=150)

    def centre(image: np.ndarray) -> np.ndarray:
        h = shares(weight.numpy() * pixels(image))
        return np.array([(h.sum(1) * np.arange(SIDE)).sum(), (h.sum(0) * np.arange(SIDE)).sum()])

    moved = np.linalg.norm(centre(written) - centre(grey()))
    assert record.attack
    assert moved / np.hypot(SIDE, SIDE) == pytest.approx(-min(record.attack.curve), rel=0.02)
    assert moved > 0.3
    shift = next(s for s in record.similarities if s.name == "centre_shift")
    assert shift.floor is not None
    assert moved > 3 * shift.floor


def test_a_linear_network_cannot_be_attacked_and_the_report_says_so() -> None:
    net = Linear(draw(4, 3 * SIDE * SIDE), torch.tensor([50.0, 0, 0, 0]))
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu")
    record, _ = one(grey(), f, "untargeted", steps=3)
    assert record.attack
    assert values(record)["original_distance"] < 1e-6
    assert any("no second-order signal" in warning for warning in record.attack.warnings)


def test_zero_steps_and_no_budget_change_nothing() -> None:
    f, _ = squares()
    for attack in ({"steps": 0}, {"eps": 0.0, "steps": 3}):
        record, written = one(grey(), f, "manipulate", target_shape="ring", **attack)
        np.testing.assert_array_equal(written, grey())
        found = values(record)
        assert found["original_distance"] == pytest.approx(0, abs=1e-9)
        assert found["target_distance"] == pytest.approx(found["target_distance_before"], abs=1e-9)
        assert found["linf"] == found["l2"] == found["prediction_drift"] == 0
        assert found["prediction_kept"] == 1


# -- fair claims -------------------------------------------------------------------------------------------------


def test_an_attack_that_costs_the_class_counts_for_nothing() -> None:
    """With no weight on the prediction the best iterates are of another class; one that keeps it is returned."""
    f = small()
    kept = [
        one(picture(i), f, "untargeted", eps=0.3, steps=20, prediction_weight=0.0, learning_rate=0.02) for i in range(4)
    ]
    for (record, written), i in zip(kept, range(4), strict=True):
        own, now = (f.logits(torch.from_numpy(pixels(p)).float()[None]).argmax() for p in (picture(i), written))
        assert int(own) == int(now)
        assert values(record)["prediction_kept"] == 1
        assert record.input.prediction
        assert not record.input.prediction.flipped


def test_what_is_reported_is_measured_on_the_written_image() -> None:
    f = small()
    record, written = one(picture(), f, "untargeted", eps=0.05, steps=8)
    again = attrsens.explain([picture(), written], model=f, method="grad", target=record.target.index, cache=False)
    maps = [shares(a.map[None].astype(np.float64)) for a in again.attributions]
    raws = attrsens.explain([picture(), written], model=f, method="grad:reduce=none", target=record.target.index)
    maps = [shares(a.map.astype(np.float64)) for a in raws.attributions]
    assert values(record)["original_distance"] == pytest.approx(distance(*maps), rel=1e-4)
    before, after = (f.logits(torch.from_numpy(pixels(p)).float()[None])[0].softmax(0) for p in (picture(), written))
    assert values(record)["prediction_drift"] == pytest.approx(float((after - before).abs().max()), rel=1e-3, abs=1e-6)
    assert record.heatmap.max == pytest.approx(float(again.attributions[1].map.max()), rel=1e-5)


def test_noise_of_the_same_norm_stands_beside_every_claim() -> None:
    f = small()
    record, _ = one(picture(), f, "untargeted", eps=0.05, steps=30, learning_rate=0.005)
    score = record.scores["original_distance"]
    assert score.floor is not None
    assert score.value is not None
    assert 0 < score.floor < score.value
    assert score.controls == {"noise": score.floor}
    assert "noise" in score.definition
    for similarity in record.similarities:
        assert similarity.role == "reference"
        assert similarity.floor is not None


def test_a_search_at_random_keeps_the_farthest_candidate_of_the_class() -> None:
    f = small()
    for draws in ("signs", "uniform", "walk"):
        record, _ = one(picture(), f, "random", draws=draws, eps=0.03, n=12)
        more, _ = one(picture(), f, "random", draws=draws, eps=0.03, n=24)
        assert values(record)["linf"] <= 0.03 + 1e-6
        assert values(more)["original_distance"] >= values(record)["original_distance"] - 1e-6
        assert values(record)["prediction_kept"] == 1
    report = attrsens.attack(picture(), model=f, method="sp:patch_size=4,stride=4", kind="random", attack={"n": 3})
    assert len(attacked(report)) == 1


# -- images, budgets, methods ------------------------------------------------------------------------------------


def test_a_result_depends_on_no_neighbour() -> None:
    f = small()
    images = [picture(i) for i in range(5)]
    options: dict[str, Any] = {"model": f, "kind": "untargeted", "attack": {"steps": 6, "perturbation": "delta-stadv"}}
    together = attrsens.attack(images, **options, cache=False)
    for i, image in enumerate(images):
        alone = attacked(attrsens.attack(image, **options, cache=False))[0]
        beside = attacked(together)[i]
        for name, value in values(alone).items():
            assert value == pytest.approx(values(beside)[name], rel=1e-3, abs=1e-5), name
    backwards = attrsens.attack(images[::-1], **options, cache=False)
    for a, b in zip(attacked(together), attacked(backwards)[::-1], strict=True):
        assert values(a) == values(b), "to the last bit, in any order"


@pytest.mark.parametrize(
    "method",
    ["gi", "sg:n=3", "ug:n=3", "ig:steps=3", "grad+smooth:n=3", "grad+softplus:beta=2", "gradcam", "lrp", "gbp"],
)
def test_every_differentiable_method_gives_way(method: str) -> None:
    f = small()
    attack = {"steps": 25, "eps": 0.06, "learning_rate": 0.01, "target_shape": "square"}
    report = attrsens.attack(picture(), model=f, method=method, attack=attack, cache=False)
    assert not report.failures
    (record,) = attacked(report)
    found = values(record)
    assert found["target_distance"] < found["target_distance_before"] - 1e-3
    assert found["prediction_kept"] == 1
    assert relu_as.active == []


def test_several_budgets_give_a_curve_and_its_area() -> None:
    f = small()
    images = [picture(i) for i in range(7)]
    eps = [0.01, 0.02, 0.06]
    report = attrsens.attack(
        images,
        model=f,
        method=["grad", "gi"],
        kind="untargeted",
        attack={"eps": eps, "steps": 10, "learning_rate": 0.01},
    )
    rows = {(r.quantity, r.group["method"], r.group["budget"].get("eps")): r for r in report.aggregates}
    for method in ("grad", "gi"):
        areas = []
        for image in {record.image.sha256 for record in report.records}:
            mine = [r for r in attacked(report) if r.method.name == method and r.image.sha256 == image]
            ys = np.maximum.accumulate([0.0, *(values(r)["original_distance"] for r in mine)])
            assert [r.attack.budget["eps"] for r in mine if r.attack] == eps
            areas.append(np.trapezoid(ys, [0.0, *eps]) / eps[-1])
        row = rows["damage_area", method, None]
        assert row.mean == pytest.approx(np.mean(areas), rel=1e-6)
        assert row.n == 7
        assert row.ci95
        assert rows["damage_area (floor)", method, None].mean < row.mean  # type: ignore[operator]
        for e in eps:
            assert rows["original_distance", method, e].n == 7
    pairs = [c for c in report.comparisons if c.quantity == "damage_area" and "control" not in c.b]
    assert len(pairs) == 1
    assert pairs[0].difference == pytest.approx(
        rows["damage_area", "grad", None].mean - rows["damage_area", "gi", None].mean, rel=1e-6
    )
    noise = [c for c in report.comparisons if c.quantity == "original_distance" and c.b.get("control") == "noise"]
    assert len(noise) == 6
    assert all(c.difference > 0 for c in noise if c.difference is not None)


def test_the_target_is_the_next_images_map_or_what_was_asked_for(tmp_path: Path) -> None:
    f = small(classes=list("abcde"))
    images = [picture(i) for i in range(3)]
    report = attrsens.attack(images, model=f, attack={"steps": 1}, cache=False)
    assert [r.attack.target for r in attacked(report) if r.attack] == [
        f"map of array-{(i + 1) % 3} for {'abcde'[int(f.logits(_tensor(images[(i + 1) % 3])).argmax())]}"
        for i in range(3)
    ]
    raw = attrsens.explain(images[1], model=f, method="grad:reduce=none", cache=False).attributions[0].map
    goal = shares(raw.astype(np.float64))
    extras = [a.extras["target"] for a in report.attributions if "target" in a.extras]
    np.testing.assert_allclose(extras[0], goal, rtol=1e-5)
    np.save(tmp_path / "wrong.npy", np.ones((5, 5), np.float32))
    wrong = attrsens.attack(images[0], model=f, attack={"steps": 1, "target_map": str(tmp_path / "wrong.npy")})
    assert [failure.stage for failure in wrong.failures] == ["attack"]
    assert "(5, 5)" in wrong.failures[0].message
    assert len(wrong.records) == 1


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels(image)).float()[None]


def test_restarts_never_do_worse_and_the_seed_decides() -> None:
    f = small()
    plain = {"eps": 0.05, "steps": 5, "learning_rate": 0.01}
    first, image = one(picture(), f, "untargeted", **plain)
    again, same = one(picture(), f, "untargeted", **plain)
    other, differs = one(picture(), f, "untargeted", **plain, seed=1)
    several, _ = one(picture(), f, "untargeted", **plain, restarts=3)
    np.testing.assert_array_equal(image, same)
    assert not np.array_equal(image, differs)
    assert first.key != other.key
    assert all(r.attack for r in (first, again, several))
    assert min(several.attack.curve) <= min(first.attack.curve) + 1e-7  # type: ignore[union-attr]


def test_the_nearest_boundary_of_a_linear_network_is_where_it_should_be() -> None:
    weight = draw(4, 3 * SIDE * SIDE, seed=1)
    net = Linear(weight, torch.zeros(4))
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu")
    report = attrsens.attack(grey(), model=f, kind="boundary", cache=False)
    assert [r.method.name for r in report.records] == ["grad", "bsm", "ig", "big"]
    z = f.logits(_tensor(grey()))[0]
    own = int(z.argmax())
    gaps = [(z[own] - z[c]).item() / (weight[own] - weight[c]).norm().item() for c in range(4) if c != own]
    record = report.records[0]
    assert record.scores["boundary_distance"].value == pytest.approx(min(gaps), rel=0.02)
    assert record.attack
    names = [stage.name for stage in record.attack.stages]
    assert names == ["pgd", "pgd + cw", "pgd + cw + apgd", "on the boundary"]
    reached = [stage.distance for stage in record.attack.stages]
    assert all(a >= b - 1e-6 for a, b in zip(reached, reached[1:], strict=False) if a and b)  # noqa: RUF007
    assert {r.attack.of for r in report.records if r.attack} == {r.key for r in report.records}
    cosine = next(s for s in record.similarities if s.to == report.records[1].key)
    assert cosine.value == pytest.approx(1, abs=1e-5), "all maps of a linear network's gradient are alike"
    aggregate = {r.quantity: r for r in report.aggregates if r.group["method"] == "grad"}
    assert aggregate["success (pgd)"].mean == 1


def test_maps_beside_a_search_are_at_the_point_that_it_found() -> None:
    f = small()
    search = {"search": "pgd-cw", "steps": 3, "bisect": 0, "eps": 0.7, "doublings": 4, "seed": 2}
    report = attrsens.attack(picture(), model=f, kind="boundary", attack=search, cache=False)
    for record in report.records:
        assert record.attack
        if record.method.name in ("bsm", "big"):
            assert record.notes["distance"] == record.attack.notes["distance"]
            own = record.method.parameters
            assert own["search_steps"] == search["steps"]
            assert all(own[name] == search[name] for name in search if name != "steps")
    report = attrsens.attack(
        picture(), model=f, kind="boundary", method=["bsm:search=pgd,search_steps=9", "ig"], attack=search, cache=False
    )
    own = report.records[0].method.parameters
    assert (own["search"], own["search_steps"], own["bisect"]) == ("pgd", 9, 0)


# -- cache, interrupts, mistakes ---------------------------------------------------------------------------------


def test_a_rerun_costs_no_pass_and_gives_the_same(tmp_path: Path) -> None:
    f = small()
    options: dict[str, Any] = {
        "model": f,
        "method": ["grad", "sg:n=2"],
        "attack": {"eps": [0.02, 0.05], "steps": 3, "perturbation": "delta-stadv-recolor"},
        "cache_dir": tmp_path,
    }
    first = attrsens.attack([picture(), picture(1)], **options)
    again = attrsens.attack([picture(), picture(1)], **options)
    assert again.provenance.passes_run.forward == again.provenance.passes_run.backward == 0
    assert again.records == first.records
    assert again.aggregates == first.aggregates
    for a, b in zip(first.attributions, again.attributions, strict=True):
        np.testing.assert_array_equal(a.map, b.map)
        np.testing.assert_array_equal(a.input, b.input)
        assert a.extras.keys() == b.extras.keys()
    more = attrsens.attack(
        [picture(), picture(1)], **options | {"attack": options["attack"] | {"eps": [0.02, 0.05, 0.08]}}
    )
    assert 0 < more.provenance.passes_run.forward < first.provenance.passes_run.forward


def test_ctrl_c_in_an_attack_keeps_what_is_finished() -> None:
    class Slow(SmallNet):
        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            Slow.passes += 1
            if Slow.passes == 25:
                raise KeyboardInterrupt
            return super().forward(x)

    f = attrsens.Classifier(Slow("reused"), [0.4] * 3, [0.3] * 3, crop=16, device="cpu", fold=False)
    with pytest.raises(Interrupted) as stopped:
        attrsens.attack([picture(), picture(1)], model=f, attack={"steps": 30, "target_shape": "ring"}, cache=False)
    report = stopped.value.report
    assert report.provenance.interrupted
    assert [r.method.name for r in report.records] == ["grad", "grad"]
    assert attacked(report) == []


def test_mistakes_are_said_before_any_pass(tmp_path: Path) -> None:
    f = small()
    np.save(tmp_path / "nan.npy", np.full((16, 16), np.nan))
    (tmp_path / "text.npy").write_text("no array")
    for options, message in (
        ({"kind": "nearst"}, "unknown attack 'nearst'"),
        ({"method": "sp:patch_size=4"}, "sp has none; methods that have one: gbp, ggradcam"),
        ({"method": "grad+topk:k=5"}, "topk has none"),
        ({"attack": {"nonsense": 3}}, "manipulate has no parameter 'nonsense'; no attack has it"),
        ({"attack": {"draws": "walk"}}, "attacks that have it: random"),
        ({"attack": {"eps": "0.1,x"}}, "eps must be"),
        ({"attack": {"eps": ""}}, "no value given"),
        ({"attack": {"target_shape": "ring", "target_map": str(tmp_path / "nan.npy")}}, "give one of them"),
        ({"attack": {"target_map": str(tmp_path / "nan.npy")}}, "not finite"),
        ({"attack": {"target_map": str(tmp_path / "text.npy")}}, "cannot be read as .npy"),
        ({"attack": {"target_image": "nowhere.jpg"}}, "no file nowhere.jpg"),
        ({"metrics": "insertion"}, "scores belong to score"),
        ({"lpips_range": "02"}, "lpips-range must be 11 or 01; got '02'"),
        ({"fail_if": "nonsense<1"}, "nonsense"),
    ):
        with pytest.raises(AttrsensError, match=message.replace(".", r"\.")):
            attrsens.attack(picture(), model=f, **options)


def test_colours_of_a_grey_input_cannot_be_mapped_and_other_images_go_on() -> None:
    f = small(channels=1)
    image = picture()[:, :, 0]
    report = attrsens.attack(image, model=f, attack={"perturbation": "recolor", "steps": 1, "target_shape": "ring"})
    assert [failure.stage for failure in report.failures] == ["attack"]
    plain = attrsens.attack(image, model=f, attack={"perturbation": "delta-stadv", "steps": 1, "target_shape": "ring"})
    assert len(attacked(plain)) == 1


def test_the_command_line_runs_every_kind(run_cli: Any, tmp_path: Path) -> None:
    few = {
        "manipulate": ["--steps", "1", "--eps", "2/255,4/255", "--target-image", "sample:coffee"],
        "untargeted": ["--steps", "1", "--perturbation", "stadv"],
        "topk": ["--steps", "1", "--k", "50"],
        "centre": ["--steps", "1"],
        "random": ["--n", "2"],
        "boundary": ["--steps", "1", "--search", "pgd", "--polish", "0", "--bisect", "1", "--method", "grad"],
    }
    assert set(few) == set(attrsens.ATTACKS)
    for kind, flags in few.items():
        out = tmp_path / kind
        code, told, err = run_cli("attack", "sample:chelsea", "--kind", kind, *flags, "--out", out, "--no-cache")
        assert code == 0, err
        assert kind in told
        report = json.loads((out / "report.json").read_bytes())
        assert report["config"]["kind"] == kind
        assert any(record["attack"] for record in report["records"])
    code, told, err = run_cli("attack", "sample:chelsea", "--steps", "1", "--out", tmp_path / "x", "--patch-size", "3")
    assert code == 2


def test_lpips_is_the_packages_with_a_backbone_of_ones_own(tmp_path: Path) -> None:
    import warnings

    import torchvision
    from safetensors.torch import save_file

    f = small()
    report = attrsens.attack(picture(), model=f, attack={"steps": 1, "target_shape": "ring"}, cache=False)
    score = attacked(report)[0].scores["lpips"]
    assert score.value is None
    assert score.reason
    assert "--lpips-backbone" in score.reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, of the package's way to ask for weights
        lpips = pytest.importorskip("lpips")
        with torch.random.fork_rng():
            peer = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
            weights = torchvision.models.vgg16(weights=None).state_dict()
    for name, value in peer.net.state_dict().items():
        weights["features." + name.partition(".")[2]] = value
    save_file(weights, tmp_path / "vgg16.safetensors")
    moved = {"steps": 6, "perturbation": "delta-stadv", "learning_rate": 0.01}
    for span in ("11", "01"):
        options = {"lpips_backbone": tmp_path / "vgg16.safetensors", "lpips_range": span, "cache_dir": tmp_path / "c"}
        report = attrsens.attack(picture(), model=f, kind="untargeted", attack=moved, **options)
        clean, after = (torch.from_numpy(pixels(a.input)).float()[None] for a in report.attributions)
        expected = peer(clean, after, normalize=span == "11").item()
        found = attacked(report)[0].scores["lpips"]
        assert found.value == pytest.approx(expected, rel=1e-4)
        assert expected > 1e-4
        assert ("[-1, 1]" in found.definition) == (span == "11")
    save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(AttrsensError, match="weights do not fit the architecture"):
        attrsens.attack(picture(), model=f, lpips_backbone=tmp_path / "other.safetensors", attack={"steps": 1})


def test_conditions_and_every_table(run_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    few = ["--steps", "2", "--eps", "2/255,8/255", "--kind", "untargeted", "--format", "png,npy,csv,md,junit"]
    images = ["sample:coffee", tmp_path / "broken.png"]
    gates = ["--fail-if", "damage_area>0.0001", "--fail-if", "original_distance>2"]
    code, told, err = run_cli("attack", *images, *few, *gates, "--out", tmp_path / "o", "--no-cache", "--json", "-")
    assert code == 1, err
    report = json.loads(told)
    assert [gate["passed"] for gate in report["gates"]] == [False, True]
    assert "damage_area" in (tmp_path / "o" / "report.md").read_text()
    assert "untargeted:" in (tmp_path / "o" / "report.csv").read_text()
    assert "original_distance" in (tmp_path / "o" / "scores.csv").read_text()
    code, told, err = run_cli(
        "attack", *images, "--steps", "1", "--out", tmp_path / "p", "--no-cache", "--json", "-", "--quiet"
    )
    assert code == 3, err
    report = json.loads(told)
    assert [failure["image"] for failure in report["failures"]] == [str(tmp_path / "broken.png")]
    (attack,) = [record["attack"] for record in report["records"] if record["attack"]]
    assert "sample:" in attack["target"], "the broken picture is no target"


def marginal(image: np.ndarray, gap: float) -> attrsens.Classifier:
    """`Squares` whose logits differ by `gap` at an image."""
    weight = 0.5 + uniform(3, SIDE, SIDE, seed=3)

    class Near(Squares):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits - logits.new_tensor([level - gap, 0])

    level = float((weight * torch.from_numpy(pixels(image)).float().square()).sum() / 2 + 100)
    return attrsens.Classifier(Near(weight), [0.0] * 3, [1.0] * 3, crop=SIDE, device="cpu")


def test_iterates_of_another_class_are_passed_over_and_the_weight_holds_the_prediction() -> None:
    drifts = {}
    for seed in range(4):
        for weight in (0.0, 1000.0):
            f = marginal(grey(), 0.02)
            plain = {"eps": 0.05, "steps": 30, "learning_rate": 0.005, "seed": seed}
            record, _ = one(grey(), f, "untargeted", prediction_weight=weight, **plain)
            assert values(record)["prediction_kept"] == 1
            drifts[seed, weight] = values(record)["prediction_drift"]
    held, free = (sum(drifts[seed, w] for seed in range(4)) for w in (1000.0, 0.0))
    assert held < 0.85 * free


def test_without_a_step_nothing_moves_in_the_second_half() -> None:
    f, _ = squares()
    record, _ = one(grey(), f, "topk", k=10, steps=10, decay=0.0)
    assert record.attack
    curve = record.attack.curve
    assert len(set(curve[:6])) == 6
    assert len(set(curve[6:])) == 1


def test_the_noise_beside_an_attack_has_its_norm() -> None:
    from attrsens.seeds import Stream

    f, weight = squares()
    record, _ = one(grey(), f, "topk", k=10, eps=0.05, steps=20)
    stream, own = Stream(0, record.image.sha256, "attack noise"), shares(weight.numpy() * pixels(grey()))
    size, found, norms = values(record)["l2"], [], []
    for i in range(3):
        draw = stream.normal([i], (3, SIDE, SIDE))[0]
        scales = size * np.linspace(0.5, 2, 3001) / np.linalg.norm(draw)
        rounded = [np.round((pixels(grey()) + s * draw).clip(0, 1) * 255) / 255 for s in scales]
        gaps = [abs(np.linalg.norm(r - pixels(grey())) - size) for r in rounded]
        noisy = rounded[int(np.argmin(gaps))]
        norms.append(np.linalg.norm(noisy - pixels(grey())))
        found.append(distance(shares(weight.numpy() * noisy), own))
    assert record.scores["l2"].controls["noise"] == pytest.approx(np.mean(norms), rel=2e-3)
    assert record.scores["l2"].controls["noise"] == pytest.approx(size, rel=0.02)
    assert record.scores["original_distance"].floor == pytest.approx(np.mean(found), rel=0.05)


def test_another_target_is_another_result(tmp_path: Path) -> None:
    f = small()
    keys = set()
    for other in (picture(1), picture(2)):
        report = attrsens.attack([picture(), other], model=f, attack={"steps": 1}, cache_dir=tmp_path)
        keys.add(attacked(report)[0].key)
    assert len(keys) == 2
