"""What several test files need."""

from __future__ import annotations

import importlib
import os
import sys

# threads that wait asleep: on a busy machine, spinning ones slow each other thirtyfold
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import attrsens
from attrsens.images import decode
from attrsens.samples import sample

DATA = os.environ.get("ATTRSENS_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="ATTRSENS_DATA is not set")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a store of its own, and no access to the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def lite0() -> attrsens.Classifier:
    """The default classifier, prepared once; tests use views of it and leave it as it is."""
    return attrsens.load("lite0", device="cpu")


@pytest.fixture(scope="session")
def plain_lite0() -> attrsens.Classifier:
    """The default classifier in its reference numerics."""
    return attrsens.load("lite0", device="cpu", fold=False)


@pytest.fixture(scope="session")
def chelsea(lite0: attrsens.Classifier) -> torch.Tensor:
    """A sample photo as lite0 sees it, (3, 224, 224)."""
    return torch.from_numpy(lite0.preprocess.apply(decode(sample("chelsea").path)))


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], object]]:
    """Import a module of docs/reproduction by its name; forgotten afterwards."""
    folder = Path(__file__).parents[1] / "docs" / "reproduction"
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for path in folder.glob("*.py"):
        if path.stem != "__main__":
            sys.modules.pop(path.stem, None)


RunCli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> Iterator[RunCli]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    import logging

    from attrsens.cli import run

    def call(*args: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([str(a) for a in args])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    yield call
    logging.getLogger("attrsens").handlers.clear()
    logging.getLogger("attrsens").propagate = True
