"""What attacks will cost: what is planned is what is made, from an empty store, from a part of it, and without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_api import picture
from toys import small

import attrsens
from attrsens.engine.plan import plan_of
from attrsens.engine.prepare_attack import prepare_attack

SHORT: dict[str, object] = {"steps": 2, "learning_rate": 0.02}
CASES: list[tuple[str, list[str], dict[str, object]]] = [
    ("untargeted", ["grad"], SHORT | {"restarts": 2}),
    ("untargeted", ["sg:n=3", "grad+softplus:beta=0.8"], SHORT | {"eps": "2/255,8/255"}),
    ("topk", ["ig:steps=4"], SHORT | {"k": 20, "learning_rate": 0.02}),
    ("centre", ["gi"], SHORT | {"perturbation": "delta-stadv-recolor"}),
    ("manipulate", ["grad", "gi"], SHORT | {"target_shape": "ring"}),
    ("manipulate", ["grad", "sg:n=3"], SHORT | {"eps": [0.02, 0.05]}),
    ("random", ["grad", "sp:patch_size=5,stride=4"], {"n": 5}),
    ("random", ["mp:steps=2,mask_side=8,init=ones"], {"n": 5}),
    ("boundary", ["grad", "ig:steps=4"], {"steps": 2, "search": "pgd-cw"}),
]


def made(report: attrsens.Report) -> tuple[int, int]:
    found = report.provenance.passes_run
    assert found
    assert not report.failures
    return found.forward, found.backward


@pytest.fixture
def images() -> list[np.ndarray]:
    return [picture(seed) for seed in range(3)]


@pytest.mark.parametrize(("kind", "methods", "attack"), CASES)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("cached", [True, False])
def test_planned_is_made(
    kind: str,
    methods: list[str],
    attack: dict[str, object],
    count: int,
    cached: bool,
    images: list[np.ndarray],
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"method": methods, "kind": kind, "attack": attack, "model": small()}
    options |= {"cache_dir": tmp_path} if cached else {"cache": False}
    prepared = prepare_attack(images[:count], **options)
    foreseen = plan_of(prepared, timed=False)
    attacks = len(methods) * len(prepared.attacks)
    assert (foreseen.cells, foreseen.cached) == (count * (len(methods) + attacks), 0)
    report = attrsens.attack(images[:count], **options)
    if any(r.attack and kind != "boundary" and r.scores["l2"].value == 0 for r in report.records):
        assert made(report) < (foreseen.forward, foreseen.backward), "what changed nothing needs no noise beside it"
    else:
        assert made(report) == (foreseen.forward, foreseen.backward)
    planned = report.provenance.passes_planned
    assert planned
    assert (planned.forward, planned.backward) == (foreseen.forward, foreseen.backward)
    if not cached:
        return
    after = plan_of(prepare_attack(images[:count], **options), timed=False)
    assert (after.forward, after.backward) == (0, 0)
    assert after.cached == after.cells == foreseen.cells
    again = attrsens.attack(images[:count], **options)
    assert made(again) == (0, 0)


def test_what_is_kept_is_not_planned_again(images: list[np.ndarray], tmp_path: Path) -> None:
    """After one budget and two images: another budget and a third image are what lacks."""
    options: dict[str, Any] = {"method": "grad", "kind": "untargeted", "model": small(batch=1), "cache_dir": tmp_path}
    first = attrsens.attack(images[:2], attack={"steps": 2, "eps": 0.02}, **options)
    options["attack"] = {"steps": 2, "eps": "0.02,0.05"}
    foreseen = plan_of(prepare_attack(images, **options), timed=False)
    assert (foreseen.cells, foreseen.cached) == (9, 4)
    report = attrsens.attack(images, **options)
    assert made(report) == (foreseen.forward, foreseen.backward)
    assert made(first)[0] < made(report)[0]


def test_on_the_command_line(run_cli: Any, images: list[np.ndarray], tmp_path: Path) -> None:
    from PIL import Image

    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    words = ("attack", tmp_path, "--method", "grad", "--kind", "random", "--n", "5", "--eps", "2/255,4/255", "--plan")
    code, out, err = run_cli(*words, "--no-cache")
    assert code == 0, err
    # each image: 1 + 1 F for the prediction and the map; twice 5 x 2 F to search, 4 x 2 F to measure
    assert "cells           9, 0 of them finished" in out
    assert "forward passes  114" in out
    assert "backward passes 57" in out
