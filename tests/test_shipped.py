"""The networks that come with attrsens: they load offline by name, and are what their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import DATA, needs_data

import attrsens
from attrsens.engine.datasets import read_dataset
from attrsens.models.cards import read_card
from attrsens.models.labels import load_labels
from attrsens.models.shipped import SUMMARIES, shipped
from attrsens.models.zoo import known_models

LARGEST = 5 * 10**6  # bytes


def told(name: str) -> dict:
    card = read_card(shipped()[name][1])
    assert card is not None
    return dict(card.told)


@pytest.mark.parametrize("name", [*shipped()])
def test_a_shipped_network_loads_offline_by_its_name(name: str) -> None:
    path = shipped()[name][1]
    assert path.stat().st_size <= LARGEST
    f = attrsens.load(name, device="cpu", offline=True)
    card = told(name)
    assert f.classes == list(load_labels("cifar10").names) == card["classes"]
    assert f.architecture == card["architecture"] == "preact-resnet32"
    assert f.preprocess.crop == 32
    assert f.preprocess.mean == tuple(card["preprocess"]["mean"])
    assert known_models()[name] == SUMMARIES[name]
    assert torch.isfinite(f.logits(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))).all()


@pytest.mark.parametrize("name", [*shipped()])
def test_a_card_says_how_the_network_was_made_and_how_good_it_is(name: str) -> None:
    card = told(name)
    recipe = {"cifar10-std": "std", "cifar10-linf": "fast", "cifar10-l2": "fast", "cifar10-cure": "cure"}[name]
    assert card["recipe"]["name"] == recipe
    assert card["recipe"]["parameters"]["seed"] == 0
    assert card["data"]["images"] + card["data"]["held_out"] == 50_000
    assert len(card["data"]["sha256"]) == 64
    kinds = {(a["kind"], a["norm"]) for a in card["accuracy"]}
    assert kinds == {("clean", None)} | {(k, n) for k in ("PGD-20", "AutoPGD") for n in ("linf", "l2")}
    assert all(0 <= a["value"] <= 1 for a in card["accuracy"])


@needs_data
@pytest.mark.parametrize("name", [*shipped()])
def test_the_accuracy_of_the_card_is_that_of_the_network(name: str) -> None:
    data = read_dataset(str(Path(str(DATA)) / "cifar10-test.npz"), limit=400)
    x = torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255
    found = float((attrsens.load(name, device="cpu").logits(x).argmax(1).numpy() == data.labels).mean())
    (clean,) = (a["value"] for a in told(name)["accuracy"] if a["kind"] == "clean")
    assert abs(found - clean) < 0.07  # four standard errors of 400 images
