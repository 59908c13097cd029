"""benchmarks/sweep.py: the passes that it charges are those of the specification, and it runs at toy sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("captum")
    monkeypatch.syspath_prepend(str(FOLDER))
    return pytest.importorskip("_swept")


def test_published_sweeps_need_what_the_specification_says(swept: Any) -> None:
    sizes = Namespace(
        sg_n=[50, 100, 200, 500, 800],
        mp_steps=[10, 150, 300, 450],
        mp_blur_steps=300,
        lime_seed_n=1000,
        lime_n=[500, 1000],
        sp_stride=3,
    )
    tasks = {task.name: task for task in swept.tasks(sizes)}
    assert tuple(tasks) == swept.NAMES
    assert {name: (task.shared, task.unshared) for name, task in tasks.items()} == {
        "sg-n": ((800, 800), (1650, 1650)),
        "mp-steps": ((486, 450), (1054, 910)),
        "mp-blur": ((936, 900), (1008, 900)),
        "lime-seed": ((5000, 0), (5000, 0)),
        "lime-n": ((1000, 0), (4500, 0)),
        "sp-patch": ((5476 + 4900 + 4356 + 3844 + 3364 + 5, 0),) * 2,
    }
    assert {name: task.theirs for name, task in tasks.items()}["mp-steps"] == 910
    assert [len(task.settings) for task in tasks.values()] == [5, 4, 3, 5, 6, 5]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_small_sweep_is_measured() -> None:
    pytest.importorskip("captum")
    words = ["--quick", "--no-readme", "--sweeps", "sg-n", "--sg-n", "1,2", "--peer-passes", "1"]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "sweep.py"), *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| sg, n 1, 2 |")]
    cells = [cell.strip() for cell in rows[0].split("|")[1:-1]]
    assert len(rows) == 1
    assert cells[1:3] == ["2 F + 2 B", "3 F + 3 B"]
    assert cells[6:8] == ["Captum (4)", "33%"]
    assert cells[-1] == "1 / 0"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_step_of_an_attack_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "attack.py"), "--quick"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "both sides agree" in done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("| 1 | grad, lite0 |")]
