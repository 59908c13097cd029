"""Localisation scores against closed forms, re-derivations from the definitions, and their chance levels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from toys import Linear, draw, uniform

import attrsens
from attrsens.engine.bench import Outcome
from attrsens.engine.judge import judge
from attrsens.regions import Region, Thing
from attrsens.scores.wsl import ceiling, overlap, painted
from attrsens.spec import SCORES

NAMES = ["pointing", "loc", "eg", "pp", "con", "class_top20", "wsl"]
PERCENTS = range(10, 51, 5)


def network(heatmap: torch.Tensor) -> attrsens.Classifier:
    """A linear network whose gradient for class 0 is this map, (C, H, W)."""
    channels = len(heatmap)
    weight = torch.stack([heatmap.flatten(), torch.zeros(heatmap.numel())])
    return attrsens.Classifier(Linear(weight, torch.zeros(2)), [0.0] * channels, [1.0] * channels, device="cpu")


def score(heatmap: object, region: Region | None, *expressions: str, method: str = "grad") -> list[Outcome]:
    heatmap = torch.as_tensor(np.asarray(heatmap), dtype=torch.float32)
    heatmap = heatmap[None] if heatmap.dim() == 2 else heatmap
    return judge(network(heatmap), torch.full_like(heatmap, 0.5), 0, method, list(expressions), annotated=region)


def value(heatmap: object, region: Region | None, expression: str) -> float:
    (outcome,) = score(heatmap, region, expression)
    assert outcome.value is not None, outcome.reason
    return outcome.value


def mask(*covers: np.ndarray, classes: tuple[int, ...] | None = None, kind: str = "mask") -> Region:
    return Region(kind, tuple(Thing("thing", classes, cover.astype(np.float32)) for cover in covers))


def box(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Region:
    covers = [painted((one,), shape) for one in boxes]
    return mask(*covers, kind="box")


def cases(count: int = 12) -> list[tuple[np.ndarray, Region]]:
    """Maps and regions of one or two boxes, drawn."""
    out = []
    for seed in range(count):
        shape = (11 + seed % 3, 17)
        boxes = []
        for k in range(1 + seed % 2):
            u = uniform(4, seed=100 * k + seed).numpy()
            top, left = int(u[0] * (shape[0] - 2)), int(u[1] * (shape[1] - 2))
            bottom, right = top + 1 + int(u[2] * (shape[0] - top - 1)), left + 1 + int(u[3] * (shape[1] - left - 1))
            boxes.append((top, left, bottom, right))
        out.append((draw(*shape, seed=seed).numpy(), box(shape, *boxes)))
    return out


def test_all_are_registered_as_regional_scores_of_the_map() -> None:
    regional = [name for name in SCORES if SCORES[name].traits.get("regional")]
    assert sorted(NAMES) == regional
    for name in NAMES:
        traits = SCORES[name].traits
        assert (traits["judges"], traits["floor"], traits["direction"]) == ("map", "shuffle", "higher")


@pytest.mark.parametrize("shape", [(28, 28), (9, 14)])
def test_a_map_that_is_the_box_is_perfect(shape: tuple[int, int]) -> None:
    region = box(shape, (2, 3, 7, 12))
    heatmap = region.inside().astype(float)
    for name in ("pointing", "loc", "eg", "pp", "class_top20", *(f"wsl:alpha={p / 100}" for p in PERCENTS)):
        assert value(heatmap, region, name) == 1, name
    (outcome,) = score(heatmap, region, "wsl")
    assert outcome.details["ceiling"] == 1
    assert outcome.details["error"] == 0
    assert outcome.details["frame"] == pytest.approx(45 / (shape[0] * shape[1]))


class TestDefinitions:
    """Each number again, pixel by pixel."""

    def test_loc_eg_pp(self) -> None:
        for a, region in cases():
            inside = region.inside()
            both = either = energy = total = magnitude = 0.0
            for i, j in itertools.product(*map(range, a.shape)):
                both += a[i, j] > 0 and inside[i, j]
                either += a[i, j] > 0 or inside[i, j]
                energy += a[i, j] * inside[i, j] if a[i, j] > 0 else 0
                total += max(float(a[i, j]), 0)
                magnitude += abs(float(a[i, j])) * inside[i, j]
            size_b, outside = inside.sum(), ((a > 0) & ~inside).sum()
            loc, eg, pp = score(a, region, "loc", "eg", "pp")
            assert loc.value == pytest.approx(both / either, abs=1e-12)
            assert loc.value == pytest.approx(both / (size_b + outside), abs=1e-12)
            assert eg.value == pytest.approx(energy / total, rel=1e-6)
            assert pp.value == pytest.approx(energy / magnitude, rel=1e-6)
            p, b = (a > 0).mean(), inside.mean()
            assert loc.details["chance"] == pytest.approx(b * p / (b + p * (1 - b)))
            assert eg.details["chance"] == pytest.approx(b)
            if not inside.all():
                rest = a[~inside]
                assert pp.details["outside"] == pytest.approx(rest[rest > 0].sum() / np.abs(rest).sum(), rel=1e-5)

    def test_con(self) -> None:
        from scipy.ndimage import center_of_mass

        for a, region in cases():
            inside = region.inside()
            rows, columns = np.nonzero(inside)
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            w = np.abs(a.astype(np.float64)) * inside
            w /= w.sum()
            cy, cx = center_of_mass(w)
            expected = 0.0
            for i, j in zip(rows, columns, strict=True):
                far = math.hypot((i - cy) / height, (j - cx) / width)
                expected += w[i, j] / max(far, 0.5 / max(height, width))
            assert value(a, region, "con") == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("gt", ["union", "any"])
    @pytest.mark.parametrize("slicing", ["exact", "sam"])
    def test_wsl_at_every_alpha(self, gt: str, slicing: str) -> None:
        for a, region in cases():
            (outcome,) = score(a, region, f"wsl:gt={gt},box={slicing}")
            for p in PERCENTS:
                kept = np.where(a < 0, 0, a).astype(np.float64)
                kept[kept < p / 100 * kept.max()] = 0
                rows, columns = np.flatnonzero(kept.sum(1)), np.flatnonzero(kept.sum(0))
                predicted = np.zeros(a.shape, bool)
                start = 1 if slicing == "sam" else 0
                predicted[rows[0] + start : rows[-1] + 1, columns[0] + start : columns[-1] + 1] = True
                truths = [region.inside()] if gt == "union" else [t.cover > 0.5 for t in region.things]
                iou = max((predicted & t).sum() / (predicted | t).sum() for t in truths)
                assert outcome.details[f"iou_{p}"] == pytest.approx(iou, abs=1e-12)
                assert outcome.details[f"error_{p}"] == float(iou <= 0.5)
                assert value(a, region, f"wsl:gt={gt},box={slicing},alpha={p / 100}") == outcome.details[f"iou_{p}"]
            assert outcome.value == outcome.details["iou_20"]

    def test_ceiling_is_the_best_of_all_boxes(self) -> None:
        for region in (
            cases(2)[1][1],
            box((9, 9), (0, 0, 3, 4), (1, 2, 8, 5), (6, 6, 9, 9)),
            box((7, 9), (0, 0, 2, 2), (4, 5, 7, 9)),
        ):
            shape = region.inside().shape
            best = 0.0
            for top, bottom in itertools.combinations(range(shape[0] + 1), 2):
                for left, right in itertools.combinations(range(shape[1] + 1), 2):
                    best = max(best, overlap((top, left, bottom, right), region.boxes(), shape, "union"))
            assert ceiling(region.boxes()) == pytest.approx(best, abs=1e-12)

    def test_class_top20_counts_entries(self) -> None:
        for seed in range(5):
            a = draw(3, 8, 9, seed=seed).numpy()
            inside = uniform(8, 9, seed=seed).numpy() < 0.4
            for k in (1, 20, 50):
                order = sorted(np.ndindex(*a.shape), key=lambda at, a=a: -a[at])[:k]
                expected = sum(inside[i, j] for _, i, j in order) / k
                assert value(a, mask(inside), f"class_top20:k={k}") == pytest.approx(expected)


class TestClosedForms:
    def test_con_of_one_and_of_two_pixels(self) -> None:
        region = box((20, 30), (4, 5, 14, 29))  # 10 x 24
        a = np.zeros((20, 30))
        a[7, 9] = 3
        a[0, 0] = 99  # outside: nothing
        assert value(a, region, "con") == pytest.approx(2 * 24)
        a[7, 15] = -3
        assert value(a, region, "con") == pytest.approx(1 / (3 / 24))
        a[7, 15], a[11, 9] = 0, 3
        assert value(a, region, "con") == pytest.approx(1 / (2 / 10))

    def test_chance_of_con_in_a_whole_box(self) -> None:
        region = box((300, 200), (0, 0, 300, 200))
        (outcome,) = score(np.ones((300, 200)), region, "con")
        assert outcome.value == pytest.approx(4 * math.log(1 + math.sqrt(2)), rel=0.01)
        assert outcome.details["chance"] == pytest.approx(outcome.value)

    def test_sam_box_loses_a_row_and_a_column(self) -> None:
        region = box((10, 10), (2, 2, 6, 7))
        a = region.inside().astype(float)
        assert value(a, region, "wsl:box=sam") == pytest.approx(3 * 4 / 20)
        row = np.zeros((10, 10))
        row[3, 2:7] = 1
        assert value(row, region, "wsl:box=sam") == 0
        assert value(row, region, "wsl") == pytest.approx(5 / 20)

    def test_alpha_0_keeps_the_positive_pixels(self) -> None:
        region = box((8, 8), (1, 1, 5, 6))
        a = np.where(region.inside(), 0.01, -1)
        a[0, 0] = 0
        assert value(a, region, "wsl:alpha=0") == 1

    def test_an_iou_of_one_half_is_an_error(self) -> None:
        region = box((8, 8), (0, 0, 4, 4))
        (outcome,) = score(box((8, 8), (0, 0, 2, 4)).inside(), region, "wsl")
        assert outcome.value == 0.5
        assert outcome.details["error"] == 1

    def test_two_apart_objects(self) -> None:
        """One box against a union cannot be perfect; the best of them can."""
        region = box((10, 20), (0, 0, 5, 5), (5, 15, 10, 20))
        one = painted(((0, 0, 5, 5),), (10, 20))
        (union,), (best,) = score(one, region, "wsl"), score(one, region, "wsl:gt=any")
        assert union.value == union.details["ceiling"] == 0.5
        assert union.details["error"] == 1
        assert best.value == best.details["ceiling"] == 1

    def test_a_mask_counts_for_wsl_by_its_extent(self) -> None:
        disc = np.hypot(*(np.indices((21, 21)) - 10)) < 8
        assert value(disc, mask(disc), "wsl") == 1
        assert value(painted(((3, 3, 18, 18),), (21, 21)), mask(disc), "wsl") == 1

    def test_pointing_tolerance_is_a_distance(self) -> None:
        region = box((30, 30), (10, 10, 20, 20))
        a = np.zeros((30, 30))
        a[15, 22] = 1  # three pixels right of column 19
        assert [value(a, region, f"pointing:tolerance={t}") for t in (0, 2, 3, 15)] == [0, 0, 1, 1]
        corner = np.zeros((30, 30))
        corner[22, 22] = 1
        assert [value(corner, region, f"pointing:tolerance={t}") for t in (4, 5)] == [0, 1]
        (outcome,) = score(a, region, "pointing:tolerance=3")
        assert (outcome.details["row"], outcome.details["column"]) == (15, 22)
        beyond = [np.clip(np.maximum(10 - at, at - 19), 0, None) for at in np.indices((30, 30))]
        near = (np.hypot(*beyond) <= 3).sum()
        assert outcome.details["chance"] == pytest.approx(near / 900)

    def test_tied_maxima_favour_no_corner(self) -> None:
        for region in (box((10, 10), (0, 0, 5, 5)), box((10, 10), (5, 5, 10, 10))):
            assert value(np.ones((10, 10)), region, "pointing") == 0.25
        a = np.zeros((10, 10))
        a[2, 2] = a[8, 8] = 5
        assert value(a, box((10, 10), (0, 0, 5, 5)), "pointing") == 0.5

    def test_signs(self) -> None:
        region = box((6, 6), (0, 0, 3, 6))
        a = np.where(np.arange(6)[:, None] < 3, -2.0, 1.0) * np.ones((6, 6))
        assert [value(a, region, n) for n in ("pointing", "loc", "eg", "pp", "class_top20:k=10")] == [0] * 5
        found = [value(a, region, n) for n in ("pointing:sign=abs", "loc:sign=abs", "eg:sign=abs", "pp:sign=abs")]
        assert found == [1, 0.5, pytest.approx(36 / 54), 1]

    def test_only_whole_pixels_count_for_class_top20(self) -> None:
        cover = np.zeros((6, 6))
        cover[1:4, 1:4] = 1
        cover[2, 2] = 0.9
        a = np.zeros((6, 6))
        a[2, 2], a[1, 1] = 2, 1
        region = mask(cover)
        assert value(a, region, "class_top20:k=1") == 0
        assert value(a, region, "class_top20:k=2") == 0.5
        assert value(a, region, "pointing") == 1
        assert score(a, region, "class_top20:k=2")[0].details["chance"] == pytest.approx(8 / 36)

    def test_objects_of_other_classes_do_not_count(self) -> None:
        here, there = painted(((0, 0, 4, 4),), (8, 8)), painted(((4, 4, 8, 8),), (8, 8))
        region = Region(
            "mask",
            (Thing("a", (0, 5), here.astype(np.float32)), Thing("b", (1,), there.astype(np.float32))),
        )
        assert value(here, region, "loc") == 1
        assert value(there, region, "loc") == 0


CORNER = box((16, 16), (3, 2, 11, 12))
PLACELESS = ["loc", "eg", "pp", "pointing", "class_top20", "con"]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Outcome]]:
    found = [score(draw(16, 16, seed=seed) - 0.4, CORNER, *PLACELESS) for seed in range(150)]
    return dict(zip(PLACELESS, map(list, zip(*found, strict=True)), strict=True))


class TestChance:
    """What maps without a place get, over many draws."""

    @pytest.mark.parametrize(("name", "margin"), [("loc", 0.01), ("eg", 0.02), ("pp", 0.02), ("con", 0.1)])
    def test_means_are_the_chance_in_the_details(self, name: str, margin: float, outcomes) -> None:
        difference = [o.value - o.details["chance"] for o in outcomes[name]]
        assert abs(np.mean(difference)) < margin

    @pytest.mark.parametrize("name", ["pointing", "class_top20"])
    def test_counts_too(self, name: str, outcomes) -> None:
        assert outcomes[name][0].details["chance"] == pytest.approx(80 / 256)
        assert abs(np.mean([o.value for o in outcomes[name]]) - 80 / 256) < (0.1 if name == "pointing" else 0.03)

    def test_pp_says_when_it_is_built_into_the_method(self) -> None:
        """A positive map has pp 1 anywhere: so do the share outside and the chance."""
        (outcome,) = score(uniform(16, 16) + 0.1, CORNER, "pp")
        assert outcome.value == outcome.details["outside"] == outcome.details["chance"] == 1


class TestNoValue:
    region = box((6, 6), (1, 1, 4, 4))
    zero = np.zeros((6, 6))

    @pytest.mark.parametrize("name", NAMES)
    def test_without_annotation_or_class(self, name: str) -> None:
        a = draw(6, 6).numpy()
        assert score(a, None, name)[0].reason == "the image has no annotation"
        other = mask(np.ones((6, 6)), classes=(1,))
        assert score(a, other, name)[0].reason == "the annotation has no object of this class"
        outside = mask(np.zeros((6, 6)), classes=(0,))
        assert score(a, outside, name)[0].reason == "the crop misses every object of this class"
        thin = mask(np.full((6, 6), 0.3))
        assert "too little" in str(score(a, thin, name)[0].reason)

    def test_empty_sets_and_zero_denominators(self) -> None:
        loc, eg, pp, con, wsl = score(self.zero, self.region, "loc", "eg", "pp", "con", "wsl")
        assert loc.value == 0
        assert (eg.value, eg.reason) == (None, "the map has no positive value")
        assert (pp.value, pp.reason) == (None, "the map is zero in the region")
        assert (con.value, con.reason) == (None, "the map is zero in the region")
        assert wsl.value == 0
        assert wsl.details["error"] == 1
        loc, eg, pp, wsl = score(self.zero - 1, self.region, "loc", "eg", "pp", "wsl")
        assert (loc.value, eg.value, pp.value, wsl.value) == (0, None, 0, 0)

    def test_the_whole_frame_has_no_outside(self) -> None:
        (outcome,) = score(self.zero + 1, mask(np.ones((6, 6))), "pp")
        assert outcome.details["outside"] is None

    def test_channels_apart(self) -> None:
        for name in NAMES:
            (outcome,) = score(draw(3, 6, 6).numpy(), self.region, f"{name}:reduce=none")
            if name == "class_top20":
                assert outcome.value is not None
            else:
                assert "choose reduce=" in str(outcome.reason)

    def test_more_entries_than_there_are(self) -> None:
        assert "fewer than k=37" in str(score(self.zero, self.region, "class_top20:k=37")[0].reason)


def test_scale_of_the_map_does_not_count() -> None:
    for a, region in cases(4):
        for name in NAMES:
            assert value(a * 1024, region, name) == value(a, region, name) == value(a / 1024, region, name), name


def test_a_linear_method_gives_the_same_through_another_channel_reduction() -> None:
    """Loc, EG and PP do not depend on scale, so sum and mean over channels agree."""
    a, region = draw(3, 11, 17).numpy(), cases(1)[0][1]
    for name in ("loc", "eg", "pp", "wsl", "pointing"):
        assert value(a, region, f"{name}:reduce=sum") == pytest.approx(
            value(a, region, f"{name}:reduce=mean"), abs=1e-6
        )


def test_con_needs_a_centre_in_the_box_not_of_the_map() -> None:
    """The centre of mass of the whole map would lie outside a box in a corner."""
    region = box((20, 20), (0, 0, 6, 6))
    (outcome,) = score(np.ones((20, 20)), region, "con")
    assert outcome.value == pytest.approx(outcome.details["chance"])
