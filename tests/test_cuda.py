"""The same maps on a GPU. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from conftest import needs_cuda
from toys import explain

import attrsens

pytestmark = [needs_cuda, pytest.mark.cuda]


@pytest.mark.parametrize(
    ("method", "parameters"), [("grad", {}), ("gi", {}), ("sg", {"n": 4}), ("ig", {"steps": 8}), ("sp", {"stride": 32})]
)
def test_maps_agree_with_the_cpu(method: str, parameters: dict[str, object], plain_lite0, chelsea) -> None:
    gpu = attrsens.load("lite0", device="cuda", fold=False)
    a = explain(plain_lite0, method, chelsea, 282, **parameters).flatten()
    b = explain(gpu, method, chelsea, 282, **parameters).cpu().flatten()
    assert float(torch.nn.functional.cosine_similarity(a, b, 0)) > 0.999


def test_draws_are_the_same_on_every_device(chelsea) -> None:
    for device in ("cpu", "cuda"):
        f = attrsens.load("lite0", device=device)
        assert f.device.type == device
        x = f.view(image="a").encode(chelsea)
        noise = x.new_tensor(f.view(image="a").stream(0, "noise").normal([0], (4,)))
        assert noise.cpu().tolist() == pytest.approx(f.view(image="a").stream(0, "noise").normal([0], (4,))[0].tolist())


def test_explain_on_a_gpu(tmp_path, run_cli) -> None:
    code, _, err = run_cli("explain", "--method", "sg", "--n", "8", "--device", "cuda", "--out", tmp_path / "out")
    assert code == 0, err


def test_an_attack_on_a_gpu(tmp_path, run_cli) -> None:
    few = ["--steps", "5", "--perturbation", "delta-stadv-recolor", "--target-shape", "ring", "--device", "cuda"]
    code, told, err = run_cli("attack", *few, "--out", tmp_path / "out", "--no-cache")
    assert code == 0, err
    assert "the class stays" in told
