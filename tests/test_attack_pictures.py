"""Pictures of attacks: exact images, changes by a stated factor, strips, curves, and their part of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_api import picture
from toys import small

import attrsens
from attrsens.errors import AttrsensError
from attrsens.render.attack import AttackWriter, amplified, flow_colours


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def written(folder: Path, images: Any, kind: str = "manipulate", model: Any = None, **attack: Any) -> attrsens.Report:
    """A run of attacks with its files."""
    model = model or small(classes=["a", "b", "<script>alert(1)</script>", "d", "e"])
    report = attrsens.attack(images, model=model, method="grad", kind=kind, attack=attack, cache=False)
    writer = AttackWriter(folder)
    images_of: dict[str, list[Any]] = {}
    for record, attribution in zip(report.records, report.attributions, strict=True):
        images_of.setdefault(record.image.path, []).append((record, attribution))
    for results in images_of.values():
        writer.add(results)
    writer.finish(report)
    return report


def test_the_attacked_image_is_kept_to_the_bit_and_the_change_by_its_factor(tmp_path: Path) -> None:
    report = written(tmp_path, picture(), eps=0.03, steps=4, learning_rate=0.01, target_shape="ring")
    clean, record = report.records
    assert clean.artifacts == {}
    attacked = np.asarray(opened(tmp_path / record.artifacts["attacked"]))
    np.testing.assert_array_equal(attacked, report.attributions[1].input)
    change = opened(tmp_path / record.artifacts["perturbation"])
    factor = float(change.info["factor"])
    moved = attacked.astype(int) - picture().astype(int)
    assert factor == 2 ** int(np.log2(127 / np.abs(moved).max())) > 1
    np.testing.assert_array_equal(np.asarray(change), 128 + factor * moved)
    assert opened(tmp_path / record.artifacts["strip"]).width > 6 * 160
    assert any("montage" in name for name in report.figures)


@pytest.mark.parametrize(("largest", "factor"), [(0, 1), (1, 64), (3, 32), (127, 1), (200, 1)])
def test_the_largest_factor_that_cuts_nothing(largest: int, factor: float) -> None:
    before = np.full((2, 2, 3), 20, np.uint8)
    after = before.copy()
    after[0, 0, 0] += largest
    change, found = amplified(before, after)
    assert found == factor
    assert change[0, 0, 0] == min(255, 128 + factor * largest)
    assert change[1, 1, 1] == 128


def test_colours_of_a_flow_are_its_direction_and_length() -> None:
    flow = np.zeros((2, 1, 3), np.float32)
    flow[0, 0] = 0, 2, -1
    still, right, left = flow_colours(flow)[0].astype(int)
    assert still.tolist() == [255, 255, 255]
    assert right.tolist() == [255, 0, 0]
    assert left[1] > left[0]
    assert left[0] > 100, "half the way is half as full"


def test_panels_show_what_was_done(tmp_path: Path) -> None:
    widths = {}
    for k, names in enumerate(("delta", "delta-stadv", "delta-stadv-recolor")):
        report = written(tmp_path / names, picture(), steps=1, perturbation=names, target_shape="disc")
        widths[k] = opened(tmp_path / names / report.records[1].artifacts["strip"]).width
    assert widths[2] - widths[1] == widths[1] - widths[0] > 100
    gray = written(tmp_path / "gray", picture()[:, :, 0], model=small(channels=1), steps=1, target_shape="disc")
    assert np.asarray(opened(tmp_path / "gray" / gray.records[1].artifacts["attacked"])).shape == (16, 16)


def test_budgets_give_a_curve_and_one_budget_none(tmp_path: Path) -> None:
    many = written(tmp_path / "many", [picture(i) for i in range(3)], eps=[0.01, 0.03], steps=2, kind="untargeted")
    one = written(tmp_path / "one", picture(), eps=0.01, steps=2, kind="untargeted")
    assert "figures/damage-untargeted.png" in many.figures
    assert not any("damage" in name for name in one.figures)


def test_the_page_tells_the_claims_and_the_doubts_and_escapes_names(tmp_path: Path) -> None:
    f = small(classes=["<script>alert(1)</script>"] * 5)
    report = written(tmp_path, picture(), model=f, eps=0.0, steps=1, target_shape="ring")
    record = report.records[1]
    assert record.attack
    record.attack.warnings.append("<b>doubt</b>")
    AttackWriter(tmp_path).finish(report)
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "<b>doubt" not in page
    assert "&lt;b&gt;doubt" in page
    assert "the map comes at most" in page
    assert 'id="attacks"' in page
    assert "attacked: manipulate delta" in page


@pytest.mark.parametrize(("kind", "head"), [("topk", "on its top"), ("centre", "centre, px"), ("untargeted", "Linf")])
def test_the_page_has_a_column_for_what_the_attack_was_after(kind: str, head: str, tmp_path: Path) -> None:
    more = {"k": 20} if kind == "topk" else {}
    written(tmp_path, [picture(i) for i in range(2)], kind=kind, eps=[0.02, 0.04], steps=2, **more)
    page = (tmp_path / "report.html").read_text()
    assert f">{head}</th>" in page
    assert (">on its top</th>" in page, ">centre, px</th>" in page) == (kind == "topk", kind == "centre")
    assert (tmp_path / f"figures/damage-{kind}.png").exists()


def test_a_boundary_search_has_one_set_of_pictures(tmp_path: Path) -> None:
    f = small()
    report = attrsens.attack(picture(), model=f, kind="boundary", attack={"steps": 3, "search": "pgd"}, cache=False)
    writer = AttackWriter(tmp_path)
    writer.add(list(zip(report.records, report.attributions, strict=True)))
    writer.finish(report)
    assert len({record.artifacts["strip"] for record in report.records}) == 1
    assert len(list((tmp_path / "heatmaps").glob("*.attacked.png"))) == 1
    assert "each stage of the search" in (tmp_path / "report.html").read_text()


def test_the_same_run_gives_the_same_bytes_and_foreign_files_stay(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / name, picture(), eps=[0.01, 0.02], steps=2, target_shape="cross")
    for path in sorted((tmp_path / "a").rglob("*.png")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name
    strip = next((tmp_path / "a" / "heatmaps").glob("*.strip.png"))
    Image.new("RGB", (3, 3)).save(strip)
    with pytest.raises(AttrsensError, match="was not written by attrsens"):
        written(tmp_path / "a", picture(), eps=[0.01, 0.02], steps=2, target_shape="cross")
