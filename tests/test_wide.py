"""Every method on every network of the zoo: what doctor predicts, and the README's support table states, happens."""

from __future__ import annotations

import numpy as np
import pytest
import zoo

import attrsens
from attrsens.engine import doctor as doctor_module
from attrsens.engine.doctor import doctor
from attrsens.spec import METHODS


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_method_does_what_the_support_table_says(name: str) -> None:
    f = zoo.classifier(name)  # folded, as it is used
    predicted = zoo.predictions(name)
    assert list(predicted) == list(METHODS)
    works = [method for method, reason in predicted.items() if reason is None]
    report = attrsens.explain("sample:coffee", model=f, method=[zoo.cheap(m) for m in works], cache=False)
    assert report.failures == []
    assert [r.method.name for r in report.records] == works
    side = zoo.ZOO[name][1]
    for method, attribution in zip(works, report.attributions, strict=True):
        assert attribution.map.shape == (side, side), method
        assert np.isfinite(attribution.map).all(), method
        assert np.abs(attribution.map).max() > 0, method
    for method in predicted.keys() - set(works):
        gist = str(predicted[method]).removeprefix("it ").partition(" to ")[0]  # "it calls no ReLU to guide through"
        assert gist in refusal(f, method), method


def refusal(f: attrsens.Classifier, method: str) -> str:
    """What a method that does not work says: before the run, or as the failure of the picture."""
    try:
        (failure,) = attrsens.explain("sample:coffee", model=f, method=method, cache=False).failures
    except attrsens.AttrsensError as error:
        return str(error)
    return failure.message


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit_tiny", "mnist-cnn"])
def test_the_table_is_what_doctor_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "SPEED", 0.1)
    found = doctor(zoo.classifier(name, fold=False))
    assert {v.method: None if v.works else v.reason for v in found.methods} == zoo.predictions(name)


def test_the_table_knows_both_answers() -> None:
    """A table of nothing but yes would be right of a zoo without transformers."""
    table = zoo.support_table().splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table[4:]] == list(zoo.ZOO)
    cells = [cell for line in table[4:] for cell in line.strip("| ").split(" | ")[1:]]
    assert cells.count("yes") > len(cells) / 2
    assert any("for which it has no rule" in cell for cell in cells)
