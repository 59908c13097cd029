"""What every registered method must keep, whatever it computes."""

from __future__ import annotations

import copy
import importlib
import re
from typing import Annotated

import numpy as np
import pytest
import torch
from toys import STYLES, SmallNet, small, uniform

import attrsens
from attrsens import METHODS, cli
from attrsens.engine.cell import parse_call
from attrsens.engine.plan import cost
from attrsens.spec import Hyper, Param, Spec

CHEAP = {"n": 3, "steps": 3, "patch_size": 5, "stride": 4, "trials": 2}
NAMES = list(METHODS)


def cheap(spec: Spec, **more: object) -> dict[str, object]:
    """Complete parameters of a small run."""
    return spec.complete({h.name: CHEAP[h.name] for h in spec.hypers if h.name in CHEAP} | more)


def run(spec: Spec, f: attrsens.Classifier, x: torch.Tensor, image: str = "a", **more: object) -> torch.Tensor:
    return attrsens.Explainer(f, spec, 1, cheap(spec, **more), image)(x)


def other_value(hyper: Hyper) -> object:
    """An admissible value that is not the default."""
    p = hyper.param
    if p.choices:
        return next(c for c in p.choices if c != hyper.default and c != "image")
    if hyper.type is bool:
        return not hyper.default
    if hyper.type is str:
        return {"of": "gi", "layer": "conv1"}[hyper.name]
    more = hyper.type(CHEAP.get(hyper.name, hyper.default) + 1)
    return more if p.max is None or more <= p.max else hyper.type(hyper.default / 2)


@pytest.fixture(scope="module")
def f() -> attrsens.Classifier:
    return small()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return uniform(3, 16, 16, seed=9)


def test_the_five_methods_are_registered() -> None:
    assert {"grad", "gi", "sg", "ig", "sp"} <= set(NAMES)


def refusal(spec: Spec, f: attrsens.Classifier, x: torch.Tensor, **parameters: object) -> str | None:
    try:
        run(spec, f, x, **parameters)
    except attrsens.AttrsensError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", NAMES)
class TestEveryMethod:
    def test_map_has_the_shape_of_the_image_and_is_finite(self, name: str, f, x) -> None:
        heatmap = run(METHODS[name], f, x)
        assert heatmap.shape == (16, 16)
        assert heatmap.dtype == torch.float32
        assert bool(heatmap.isfinite().all())
        assert float(heatmap.abs().max()) > 0

    def test_is_repeatable_to_the_bit(self, name: str, f, x) -> None:
        assert torch.equal(run(METHODS[name], f, x), run(METHODS[name], f, x))

    def test_does_not_touch_the_global_generators(self, name: str, f, x) -> None:
        before_torch, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        run(METHODS[name], f, x)
        assert torch.equal(torch.get_rng_state(), before_torch)
        assert np.array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002

    def test_batch_size_changes_nothing_beyond_float_tolerance(self, name: str, x) -> None:
        maps = [run(METHODS[name], small(batch=b), x) for b in (1, 7, 16)]
        ulps = 2e-7  # a fall is the difference of two scores near 1, however small it is itself
        for other in maps[1:]:
            torch.testing.assert_close(other, maps[0], rtol=1e-5, atol=1e-6 * float(maps[0].abs().max()) + ulps)

    def test_input_and_network_stay_as_they_were(self, name: str, x) -> None:
        net = SmallNet("inplace")
        state, modules = copy.deepcopy(net.state_dict()), [type(m) for m in net.modules()]
        net.train()
        f = attrsens.Classifier(net, [0.4] * 3, [0.2] * 3, crop=16, device="cpu")
        run(METHODS[name], f, x)  # the first pass folds and lays out
        inside = f._net
        before = [(type(m), dict(vars(m)["_forward_hooks"]), dict(m._forward_pre_hooks)) for m in inside.modules()]
        weights = copy.deepcopy(inside.state_dict())
        given = x.clone()
        run(METHODS[name], f, given)
        assert torch.equal(given, x)
        after = [(type(m), dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in inside.modules()]
        assert after == before
        assert not inside.training
        assert not any(m._backward_hooks or m._backward_pre_hooks for m in inside.modules())
        assert all(torch.equal(v, weights[k]) for k, v in inside.state_dict().items())
        assert not any(p.requires_grad or p.grad is not None for p in inside.parameters())
        assert net.training
        assert [type(m) for m in net.modules()] == modules
        assert all(p.requires_grad and p.grad is None for p in net.parameters())
        assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())

    def test_awkward_relus_give_the_same_map(self, name: str, x) -> None:
        maps = [run(METHODS[name], small(style), x) for style in STYLES]
        for other in maps[1:]:
            torch.testing.assert_close(other, maps[0], rtol=1e-5, atol=1e-6 * float(maps[0].abs().max()))

    def test_one_channel_images_work(self, name: str) -> None:
        heatmap = run(METHODS[name], small(channels=1), uniform(1, 16, 16, seed=3))
        assert heatmap.shape == (16, 16)
        assert bool(heatmap.isfinite().all())
        assert float(heatmap.abs().max()) > 0

    def test_passes_counted_dry_are_the_passes_made(self, name: str, f, x) -> None:
        spec = METHODS[name]
        made = attrsens.Explainer(f, spec, 1, cheap(spec), "a").raw(x).passes
        call = parse_call(name, cheap(spec))
        planned = cost(f, call, (16, 16))
        assert (planned.forward, planned.backward) == (made.forward, made.backward)
        assert made.forward > 0 or spec.traits["cost"] == "none"

    def test_seed_and_image_matter_exactly_where_draws_are_made(self, name: str, f, x) -> None:
        spec = METHODS[name]
        draws = {"baseline": "random"} if name == "ig" else {}
        base = run(spec, f, x, **draws)
        if not any(h.name == "seed" for h in spec.hypers):
            assert torch.equal(run(spec, f, x, image="b"), base)
            return
        assert not torch.equal(run(spec, f, x, seed=1, **draws), base)
        shared = spec.traits.get("draws") == "seed"  # the same for every image
        assert torch.equal(run(spec, f, x, image="b", **draws), base) is shared

    def test_every_parameter_changes_the_key_and_parses_back(self, name: str, f) -> None:
        spec = METHODS[name]
        call = parse_call(name)
        assert parse_call(call.expression) == call
        for hyper in spec.hypers:
            if hyper.type.__name__ == "Path" or (hyper.name == "sign" and not spec.traits["gradient"]):
                continue
            changed = parse_call(name, {hyper.name: other_value(hyper)})
            assert changed.identity != call.identity, hyper.name
            assert parse_call(changed.expression) == changed

    def test_defaults_and_sweeps_are_admissible_and_described(self, name: str, f) -> None:
        spec = METHODS[name]
        assert spec.summary
        assert spec.traits["cost"]
        for hyper in spec.hypers:
            p = hyper.param
            assert p.help
            assert hyper.check(hyper.default, name) == hyper.default
            assert all(hyper.check(v, name) == v for v in p.sweep)
            assert p.reference is None or p.reference in p.sweep
            assert p.scale != "ratio" or hyper.type in (int, float)

    @pytest.mark.parametrize("output", ["logit", "prob"])
    def test_an_output_is_explained_or_refused_by_name(self, name: str, output: str, f, x) -> None:
        """What a space means is in test_spaces."""
        refused = refusal(METHODS[name], f, x, output=output)
        if refused:
            assert output == "prob"
            assert refused == f"{name}: output=prob has no rule for the softmax; use output=logit"

    def test_sign_and_reduction_act_as_named(self, name: str, f, x) -> None:
        spec = METHODS[name]
        raw = attrsens.Explainer(f, spec, 1, cheap(spec), "a").raw(x).map
        stack = raw if raw.dim() == 3 else raw[None]
        for sign, signed in (("signed", stack), ("abs", stack.abs())):
            for reduce, want in (("mean", signed.mean(0)), ("sum", signed.sum(0)), ("max", signed.amax(0))):
                torch.testing.assert_close(run(spec, f, x, sign=sign, reduce=reduce), want)
            none = run(spec, f, x, sign=sign, reduce="none")
            torch.testing.assert_close(none.reshape(stack.shape), signed)


def test_one_name_has_one_type_in_every_method() -> None:
    for name, owners in METHODS.parameters().items():
        assert len({h.type for h in owners.values()}) == 1, name


@pytest.mark.parametrize("name", [n for n in NAMES if not METHODS[n].traits["gradient"]])
def test_abs_sample_is_refused_where_no_gradient_is_averaged(name: str) -> None:
    with pytest.raises(attrsens.AttrsensError, match="sign=abs_sample is for methods that average gradients"):
        parse_call(f"{name}:sign=abs_sample")


def test_abs_sample_averages_magnitudes(f, x) -> None:
    """Mean of |g_i|, from the noisy gradients one by one, is at least |mean g_i| and differs from it."""
    spec = METHODS["sg"]
    inside, outside = (run(spec, f, x, n=6, sign=s, reduce="none") for s in ("abs_sample", "abs"))
    assert bool((inside >= outside - 1e-6).all())
    assert float((inside - outside).max()) > 1e-3 * float(inside.max())


def test_a_method_is_one_function(run_cli, tmp_path) -> None:
    """Registering one function brings flag, check, key, table, plan and a run; no second place knows of it."""

    def checker(f, x, target, *, squares: Annotated[int, Param("squares a side", min=1, sweep=(2, 4))] = 2):
        """Checkerboard times the gradient."""
        side = x.shape[-1]
        grid = torch.arange(side) * squares // side
        return f.gradient(x, target) * ((grid[:, None] + grid[None]) % 2)

    METHODS("checker", version=1, gradient=True, cost="1 F + 1 B")(checker)
    try:
        importlib.reload(importlib.import_module("attrsens.cli.explain"))
        importlib.reload(cli)
        code, out, err = run_cli("explain", "--squares", "4", "--out", tmp_path / "o", "--json", "-")
        assert code == 0, err
        assert '"expression": "checker:squares=4' in out
        code, out, err = run_cli("explain", "--method", "checker:squares=0", "--out", tmp_path / "o")
        assert (code, err) == (2, "attrsens: checker: squares must be an integer of at least 1; got '0'\n")
        code, out, _ = run_cli("list", "methods")
        assert re.search(r"^checker +Checkerboard times the gradient", out, re.M)
        code, out, _ = run_cli("explain", "--method", "checker", "--plan")
        assert "backward passes 1\n" in out
    finally:
        METHODS.remove("checker")
        importlib.reload(importlib.import_module("attrsens.cli.explain"))
        importlib.reload(cli)
