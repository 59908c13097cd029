"""What a map may be made into: files that are no arrays, pictures that are the same; which end of a number is which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_api import picture
from test_attack import attacked, one, values
from toys import small, uniform

import attrsens
from attrsens.errors import AttrsensError


def header(text: str) -> bytes:
    """A .npy file of 16 float32 zeros whose header says something else."""
    data = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data + bytes(64)


BROKEN = {
    "truncated tuple": "{'descr': '<f4', 'fortran_order': False, 'shape': (4,",
    "open string": "{'descr': '<f4, 'fortran_order': False, 'shape': (4, 4)}",
    "no end of digits": "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 4)}",
    "too many": "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999)}",
    "truth for numbers": "{'descr': '<f4', 'fortran_order': False, 'shape': (True, True)}",
    "a list for a key": "{[]: '<f4', 'fortran_order': False, 'shape': (4, 4)}",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (4, 4)}",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_target_file_that_is_no_array_is_told_in_a_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "goal.npy"
    path.write_bytes(header(BROKEN[name]))
    with pytest.raises(AttrsensError, match=r"target map .*goal\.npy") as told:
        attrsens.attack(picture(), model=small(), attack={"target_map": str(path)})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((16, 16), 1e300), "not finite, as float32"),
        (np.zeros((16, 16)), "zero everywhere"),
        (np.full((16, 16), 1e-300), "zero everywhere"),
        (np.zeros((0, 16)), "empty"),
        (np.zeros((16, 16), complex), "an array of numbers"),
    ],
)
def test_a_target_that_is_no_map_is_refused_before_any_pass(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "goal.npy", array)
    with pytest.raises(AttrsensError, match=message):
        attrsens.attack(picture(), model=small(), attack={"target_map": str(tmp_path / "goal.npy")})


def test_a_mask_is_a_target(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", uniform(16, 16).numpy() > 0.5)
    np.save(tmp_path / "map.npy", (uniform(16, 16).numpy() > 0.5).astype(np.float64))
    both = [
        one(picture(), small(), "manipulate", steps=2, target_map=str(tmp_path / f"{n}.npy")) for n in ("mask", "map")
    ]
    assert values(both[0][0]) == values(both[1][0])


def test_the_same_picture_twice_is_no_target_for_itself() -> None:
    images = [picture(), picture(), picture(1)]
    report = attrsens.attack(images, model=small(), attack={"steps": 1}, cache=False)
    told = [r.attack.target.split()[2] for r in attacked(report) if r.attack and r.attack.target]
    assert told == ["array-2", "array-2", "array-0"]
    alone = attrsens.attack([picture(), picture()], model=small(), attack={"steps": 1, "eps": 0.0}, cache=False)
    for record in attacked(alone):
        assert record.attack
        assert record.attack.target
        assert "sample:" in record.attack.target


def test_what_an_attack_had_to_spend_speaks_for_the_explanation() -> None:
    (record,) = attacked(attrsens.attack(picture(), model=small(), attack={"steps": 1, "target_shape": "ring"}))
    up = {"target_distance", "prediction_drift", "linf", "l2", "lpips"}
    for name, score in record.scores.items():
        expected = "higher" if name in up else "lower" if name == "original_distance" else "none"
        assert score.direction == expected, name


def test_help_names_the_extra_and_both_defaults(run_cli: Any) -> None:
    code, told, _ = run_cli("attack", "--help")
    assert code == 0
    words = " ".join(told.replace("│", " ").split())
    assert "the extra 'lpips'" in words
    assert "for boundary cosine" in words
