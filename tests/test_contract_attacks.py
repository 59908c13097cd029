"""What every registered attack must keep, whatever it is after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_api import picture
from test_attack import attacked, values
from toys import small

import attrsens
from attrsens.engine.report import Report
from attrsens.spec import Hyper, Spec

FEW = {"steps": 2, "n": 2, "k": 20, "polish": 1, "bisect": 2, "search": "pgd", "target_shape": "ring"}
KINDS = list(attrsens.ATTACKS)


def few(spec: Spec) -> dict[str, Any]:
    """Parameters of a small run."""
    return {h.name: FEW[h.name] for h in spec.hypers if h.name in FEW}


def run(kind: str, images: Any, cache: Path | None = None, **more: Any) -> Report:
    options = few(attrsens.ATTACKS[kind]) | more
    kept: dict[str, Any] = {"cache_dir": cache} if cache else {"cache": False}
    report = attrsens.attack(images, model=small(), method="grad", kind=kind, attack=options, **kept)
    assert not report.failures
    return report


def inputs(report: Report) -> list[np.ndarray]:
    return [a.input for a, r in zip(report.attributions, report.records, strict=True) if r.attack]


def other(hyper: Hyper) -> Any:
    """An admissible value that is not that of the small run."""
    p, now = hyper.param, FEW.get(hyper.name, hyper.default)
    if hyper.name == "perturbation":
        return "delta-recolor"
    if p.choices:
        return next(c for c in p.choices if c != now)
    if hyper.type is bool:
        return not now
    more = hyper.type(now + 1)
    return more if p.max is None or more <= p.max else hyper.type(now / 2)


@pytest.mark.parametrize("kind", KINDS)
class TestEveryAttack:
    def test_is_repeatable_to_the_bit_and_says_what_was_done(self, kind: str) -> None:
        first, again = (run(kind, picture()) for _ in range(2))
        assert [r.key for r in first.records] == [r.key for r in again.records]
        for a, b in zip(inputs(first), inputs(again), strict=True):
            assert np.array_equal(a, b)
        for a, b in zip(attacked(first), attacked(again), strict=True):
            assert values(a) == values(b)
            assert a.attack is not None
            assert set(a.attack.parameters) == {h.name for h in attrsens.ATTACKS[kind].hypers}

    def test_other_images_in_the_batch_and_their_order_change_nothing(self, kind: str) -> None:
        pictures = [picture(seed=s) for s in (1, 2, 3)]
        together = {r.image.sha256: (r, x) for r, x in _pairs(run(kind, pictures))}
        backwards = {r.image.sha256: (r, x) for r, x in _pairs(run(kind, pictures[::-1]))}
        alone = {r.image.sha256: (r, x) for p in pictures for r, x in _pairs(run(kind, [p]))}
        assert len(alone) == 3
        for image, (record, x) in alone.items():
            for company in (together, backwards):
                assert np.array_equal(company[image][1], x)
                assert values(company[image][0]) == pytest.approx(values(record), rel=1e-4, abs=1e-5)

    def test_keeps_to_its_budget_and_the_written_image_is_eight_bit(self, kind: str) -> None:
        for record, x in _pairs(run(kind, picture())):
            assert x.dtype == np.uint8
            eps = record.attack.budget.get("eps") if record.attack else None
            if eps is not None and kind != "boundary":
                assert values(record)["linf"] <= eps + 1e-6

    def test_every_parameter_tells_results_apart(self, kind: str, tmp_path: Path) -> None:
        """A result that is kept for one value is not read for another; a map's own attack has a key of its own."""
        spec = attrsens.ATTACKS[kind]
        base = run(kind, picture(), cache=tmp_path)
        free = [h for h in spec.hypers if h.param.choices or h.name == "perturbation" or h.type not in (str, Path)]
        assert free
        for hyper in free:
            changed = {hyper.name: other(hyper)}
            kept, fresh = (run(kind, picture(), cache=cache, **changed) for cache in (tmp_path, None))
            for a, b, c in zip(inputs(kept), inputs(fresh), attacked(kept), strict=True):
                assert np.array_equal(a, b), hyper.name
                assert c.attack is not None
                assert c.attack.parameters[hyper.name] == changed[hyper.name]
            if spec.traits.get("maps", True):
                assert not {r.key for r in attacked(kept)} & {r.key for r in attacked(base)}, hyper.name

    def test_says_its_formula_source_and_cost(self, kind: str) -> None:
        spec = attrsens.ATTACKS[kind]
        assert spec.summary
        assert spec.traits["cost"]
        assert all(h.param.help for h in spec.hypers)


def _pairs(report: Report) -> list[tuple[Any, np.ndarray]]:
    return list(zip(attacked(report), inputs(report), strict=True))
