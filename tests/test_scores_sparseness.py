"""Gini: closed forms, the Lorenz curve, scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import draw, small, uniform

from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.engine.judge import case_of
from attrsens.explainer import Raw
from attrsens.models.batches import Passes
from attrsens.scores._case import NoValue
from attrsens.scores.sparseness import gini
from attrsens.spec import SCORES


def of(heatmap: torch.Tensor, expression: str = "gini") -> float:
    """Gini of a map as the score sees it."""
    f, call = small(), parse_call(expression, registry=SCORES)
    raw = Raw(heatmap, {}, Passes())
    case = case_of(explainer(f, parse_call("grad"), 0), call, uniform(3, 16, 16), torch.zeros(5), raw)
    return gini(case, offset=float(call.parameters["offset"]))


def lorenz(values: np.ndarray) -> float:
    """1 - 2 times the area under the Lorenz curve, by trapezoids."""
    a = np.sort(np.abs(values).ravel().astype(np.float64))
    curve = np.concatenate([[0.0], np.cumsum(a) / a.sum()])
    return 1 - 2 * float(((curve[1:] + curve[:-1]) / 2).mean())


def test_closed_forms() -> None:
    one = torch.zeros(3, 16, 16)
    one[1, 4, 5] = -2.0
    assert of(one) == pytest.approx(1 - 1 / one.numel(), abs=1e-12)
    assert of(torch.full((3, 16, 16), -0.3)) == pytest.approx(0, abs=1e-12)
    # half-normal magnitudes: sqrt 2 - 1; exponential ones: 1/2 (methods 4.5)
    assert of(draw(3, 128, 128)) == pytest.approx(2**0.5 - 1, abs=0.005)
    assert of(-uniform(3, 128, 128).log()) == pytest.approx(0.5, abs=0.005)


def test_it_is_what_the_lorenz_curve_encloses() -> None:
    heatmap = draw(3, 16, 16).pow(3)
    assert of(heatmap) == pytest.approx(lorenz(heatmap.numpy()), abs=1e-9)
    assert of(heatmap, "gini:reduce=mean") == pytest.approx(lorenz(heatmap.mean(0).numpy()), abs=1e-9)
    assert of(heatmap, "gini:reduce=mean") != pytest.approx(of(heatmap), abs=1e-3), "channels count apart"


def test_scale_does_not_matter_unless_an_offset_is_added() -> None:
    heatmap = draw(3, 16, 16)
    assert of(heatmap * 1e-6) == pytest.approx(of(heatmap), rel=1e-6)
    published = of(heatmap, "gini:offset=1e-7")
    assert published == pytest.approx(of(heatmap), abs=1e-6)
    assert of(heatmap * 1e-6, "gini:offset=1e-7") < 0.95 * published


def test_absolute_values_inside_the_average_lower_it() -> None:
    """Science C-8: |g| averaged over draws is less sparse than |the average of g|."""
    draws = draw(50, 3, 32, 32)
    assert of(draws.abs().mean(0)) < 0.6 * of(draws.mean(0))


def test_a_zero_map_has_none() -> None:
    with pytest.raises(NoValue, match="zero everywhere"):
        of(torch.zeros(3, 16, 16))
