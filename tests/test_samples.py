"""The packaged pictures are what their table says, and the synthetic ones can be made again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from attrsens.images import decode
from attrsens.samples import folder, samples

FREE = ("CC0-1.0", "CC-BY-2.0", "no known restrictions")


def maker():
    spec = importlib.util.spec_from_file_location("make", Path(__file__).parent.parent / "sample_images" / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_at_least_eight_photographs_under_free_licences() -> None:
    photos = [s for s in samples().values() if not s.name.startswith("tennis")]
    assert len(photos) >= 8
    for s in samples().values():
        assert s.licence in FREE or s.licence.startswith("public domain"), s
        assert s.source
        assert min(decode(s.path).size) >= 224


def test_no_file_without_a_row_and_no_row_without_a_file() -> None:
    files = {p.name for p in folder().iterdir() if p.suffix in (".png", ".jpg")}
    assert files == {s.file for s in samples().values()}


def test_photographs_are_those_of_the_packages() -> None:
    for name, inside, *_ in maker().PHOTOS:
        package, _, rest = inside.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None and package == "sklearn":
            continue  # not among the test extras; the others are
        assert spec
        assert spec.submodule_search_locations
        original = Path(spec.submodule_search_locations[0]) / rest
        assert original.read_bytes() == samples()[name].path.read_bytes(), name


@pytest.mark.parametrize("diameter", [19, 84])
def test_tennis_balls_are_generated_and_of_their_size(diameter: int) -> None:
    pixels = decode(samples()[f"tennis{diameter}"].path).pixels
    again = maker().tennis_ball(diameter).astype(int)
    assert np.abs(pixels - again).max() <= 1
    rows, columns = np.nonzero(pixels.max(2) > 0)
    assert pixels.shape == (224, 224, 3)
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == diameter
