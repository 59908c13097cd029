"""Several settings of one method in one run: what each gives, when it comes, and what the run costs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated

import pytest
import torch
from toys import small, uniform

import attrsens
from attrsens import METHODS
from attrsens.engine.cell import Call, over_names, over_values, parse_call, run_key
from attrsens.engine.compute import explainer
from attrsens.explainer import Explainer, Raw, raw_across, raw_together
from attrsens.spec import WRAPPERS, Hyper, Param, Registry

X = uniform(3, 16, 16, seed=4)
VALUES = {"n": (3, 5, 20), "steps": (2, 4, 8)}
CHEAP = {"segments": 6, "patch_size": 5, "stride": 4, "search_steps": 3, "doublings": 0, "mask_side": 8}
ENTRIES = [name for name in METHODS if "over" in METHODS[name].traits]
ENTRIES += [f"sg:n=3+{name}" for name in WRAPPERS if "over" in WRAPPERS[name].traits]


def values(hyper: Hyper) -> tuple[object, ...]:
    """Some admissible values, ascending."""
    if hyper.param.choices:
        return tuple(sorted(hyper.param.choices))
    return VALUES.get(hyper.name, (hyper.default, hyper.default * 2))


def sweep(expression: str) -> tuple[list[Call], list[int]]:
    """Every combination of a few values of what settings may differ in, as calls and targets in their order."""
    call = parse_call(expression)
    outermost = WRAPPERS[call.wrappers[-1].name] if call.wrappers else METHODS[call.name]
    free = [name for name in over_names(call) if name != "target"]
    fixed = {h.name: CHEAP[h.name] for h in outermost.hypers if h.name in CHEAP}
    calls = []
    for point in itertools.product(*(values(outermost.hyper(name)) for name in free)):
        own = fixed | dict(zip(free, point, strict=True))
        text = ",".join(f"{name}={value}" for name, value in own.items())
        calls.append(parse_call(f"{expression}:{text}" if text else expression))
    targets = [1, 3] if "target" in over_names(call) else [1]
    pairs = [(call, target) for call in sorted(calls, key=over_values) for target in targets]
    return [call for call, _ in pairs], [target for _, target in pairs]


def bind(
    f: attrsens.Classifier, calls: Sequence[Call | str], targets: Sequence[int] = (), dry: bool = False
) -> list[Explainer]:
    parsed = [parse_call(call) if isinstance(call, str) else call for call in calls]
    return [explainer(f, c, t, "toy", dry) for c, t in zip(parsed, targets or [1] * len(parsed), strict=True)]


def shared(explainers: Sequence[Explainer], x: torch.Tensor = X) -> tuple[list[Raw], tuple[int, int]]:
    """Every result, and the (forward, backward) passes made, which the network's own count confirms."""
    seen, f = [0], explainers[0].classifier
    f.settle(x)
    handle = f.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found = list(raw_across(explainers, x))
    handle.remove()
    forward, backward = (sum(getattr(made, kind) for _, made in found) for kind in ("forward", "backward"))
    assert sum(seen) == (0 if explainers[0].dry else forward)
    return [raw for raw, _ in found], (forward, backward)


def made(f: attrsens.Classifier, *calls: str, targets: Sequence[int] = ()) -> tuple[int, int]:
    """The passes that settings cost together, which a dry run says beforehand."""
    _, passes = shared(bind(f, calls, targets))
    assert shared(bind(f, calls, targets, dry=True))[1] == passes
    return passes


def assert_same(got: Raw, want: Raw) -> None:
    torch.testing.assert_close(got.map, want.map, rtol=1e-5, atol=1e-5 * float(want.map.abs().max()))
    assert got.notes.keys() == want.notes.keys()
    for name, value in want.notes.items():
        assert got.notes[name] == (value if value is None else pytest.approx(value, rel=1e-4, abs=1e-6)), name


def test_the_entries_that_share_are_found() -> None:
    assert {"sg", "ug", "vargrad", "sgsq", "lime", "kshap", "rise", "sp", "ig", "mp"} <= set(ENTRIES)
    assert "sg:n=3+smooth" in ENTRIES


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_setting_gives_what_it_gives_alone(entry: str) -> None:
    f = small()
    f.settle(X)
    calls, targets = sweep(entry)
    explainers = bind(f, calls, targets)
    raws, passes = shared(explainers)
    assert len(raws) == len(calls)
    alone = [one.raw(X) for one in explainers]
    for got, want in zip(raws, alone, strict=True):
        assert_same(got, want)
        assert got.passes == want.passes
    dearest = max(raw.passes.forward for raw in alone)
    assert dearest <= passes[0] <= sum(raw.passes.forward for raw in alone)
    assert shared(bind(f, calls, targets, dry=True))[1] == passes
    assert len({run_key(call) for call in calls}) == 1


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_repeated_setting_costs_nothing(entry: str) -> None:
    f = small()
    calls, targets = sweep(entry)
    raws, passes = shared(bind(f, calls[:1] * 2, targets[:1] * 2))
    assert torch.equal(raws[0].map, raws[1].map)
    assert passes == (raws[0].passes.forward, raws[0].passes.backward)


@pytest.mark.parametrize("name", ["sg", "ug", "vargrad", "sgsq"])
def test_noisy_copies_of_the_largest_number_are_enough_for_all(name: str) -> None:
    assert made(small(), *(f"{name}:n={n}" for n in (50, 100, 200, 500, 800))) == (800, 800)


def test_the_gradient_itself_joins_its_noisy_copies() -> None:
    f = small()
    assert made(f, "sg:n=0", "sg:n=4", "sg:n=9") == (10, 10)
    assert made(f, *(f"sg:n={n},spread=0" for n in (0, 4, 9))) == (1, 1)


@pytest.mark.parametrize("call", ["sg:n={}", "vargrad:n={}", "lime:segments=6,n={}", "rise:n={}", "grad+smooth:n={}"])
def test_a_result_comes_before_the_passes_of_the_next(call: str) -> None:
    f = small()
    seen: list[int] = []
    explainers = bind(f, [call.format(n) for n in (8, 800)])
    f.settle(X)
    f.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    results = raw_across(explainers, X)
    assert sum(seen) == 0, "nothing before it is asked for"
    _, passes = next(results)
    assert sum(seen) == passes.forward <= 8 + max(f.sizes)
    results.close()
    assert sum(seen) == passes.forward


def test_the_largest_setting_does_not_depend_on_which_others_are_asked() -> None:
    f = small()
    f.settle(X)
    for call in ("sg:n={}", "vargrad:n={}", "lime:segments=6,n={}", "kshap:n={}", "rise:n={}", "sg:n=3+smooth:n={}"):
        alone = bind(f, [call.format(45)])[0].raw(X)
        raws, _ = shared(bind(f, [call.format(n) for n in (3, 11, 45)]))
        assert torch.equal(raws[-1].map, alone.map), call


def test_linear_models_are_fitted_again_to_the_same_scores() -> None:
    f = small()
    lime = "lime:segments=6,n={},kernel_width={}"
    assert made(f, *(lime.format(40, w) for w in (0.1, 0.25, 1))) == (40, 0)
    assert made(f, *(lime.format(n, 0.25) for n in (20, 30, 40))) == (40, 0)
    assert made(f, *[lime.format(40, 0.25)] * 3, targets=[0, 1, 4]) == (40, 0)
    assert made(f, *(lime.format(n, w) for n in (20, 40) for w in (0.1, 1))) == (40, 0)


def test_one_stream_of_hidden_images_serves_every_class() -> None:
    f = small()
    for call, forward in (("kshap:n=30", 32), ("rise:n=30", 30), ("sp:patch_size=4,stride=4", 17)):
        assert made(f, *[call] * 3, targets=[0, 1, 4]) == (forward, 0)
    assert made(f, *(f"rise:n={n}" for n in (10, 30))) == (30, 0)
    assert made(f, *(f"kshap:n={n}" for n in (10, 30))) == (32, 0)


def test_coalitions_that_are_sampled_are_among_all_of_them() -> None:
    f = small()
    calls = [f"kshap:segments=4,n={n}" for n in (5, 9, 30, 100)]
    explainers = bind(f, calls)
    raws, passes = shared(explainers)
    assert int(raws[0].notes["segments"]) == 4
    assert passes == (2 + 14, 0)
    assert shared(bind(f, calls, dry=True))[1] == passes
    for one, raw in zip(explainers, raws, strict=True):
        assert_same(raw, one.raw(X))
    assert made(f, "kshap:segments=1,n=1", "kshap:segments=1,n=3") == (2, 0)


def test_points_of_a_path_are_passed_once() -> None:
    f = small()
    assert made(f, *(f"ig:steps={s}" for s in (8, 16, 32))) == (33, 33)
    assert made(f, *(f"ig:steps={s}" for s in (10, 20))) == (21, 21)
    assert made(f, *(f"ig:steps={s}" for s in (2, 3))) == (5, 5), "both ends and three between them"
    assert made(f, *(f"ig:steps={s},rule=left" for s in (4, 8))) == (8 + 2, 8), "the ends, for the gap, once"
    assert made(f, *(f"ig:steps={s},rule=gausslegendre" for s in (3, 5))) == (7 + 2, 7), "the middle is in both"
    assert made(f, *(f"ig:steps={s},baseline=random,trials=3" for s in (2, 4))) == (15, 15)
    for call in ("ig:steps={},rule=middle", "ig:steps={},rule=captum_trapezoid,baseline=random,trials=2"):
        explainers = bind(f, [call.format(s) for s in (3, 9, 12)])
        for one, raw in zip(explainers, shared(explainers)[0], strict=True):
            assert_same(raw, one.raw(X))
    ((raw, _),) = raw_across(bind(f, ["ig:steps=3,sign=abs_sample"]), X)
    assert raw.notes == {"completeness_gap": None}


def test_steps_of_an_optimiser_are_snapshots() -> None:
    f = small()
    for init, more in (("ones", 0), ("circle", 36)):
        calls = [f"mp:mask_side=8,steps={s},init={init}" for s in (10, 150, 300, 450)]
        assert made(f, *calls) == (450 + more, 450)


def test_base_maps_are_made_once_for_every_mean_and_median() -> None:
    f = small()
    calls = [f"grad+smooth:n={n},agg={agg}" for n in (5, 10, 30) for agg in ("mean", "median")]
    assert made(f, *calls) == (30, 30)
    assert made(f, *(f"sg:n=4+smooth:n={n}" for n in (2, 6))) == (24, 24)
    assert made(f, *(f"sg:n=4+smooth:n={n},radius=0" for n in (2, 6))) == (4, 4)
    assert made(f, *(f"sg:n=4+smooth:n=3+topk:k={k}" for k in (2, 6))) == (12, 12)


def test_rows_of_one_batch_differ_and_every_one_has_its_snapshots() -> None:
    """To the bit what each gives alone, in a batch of the same shape."""
    f, width = small(), 4
    f.settle(X)
    rows, images = [], [X, uniform(3, 16, 16, seed=6)]
    for i, (radius, init, seed) in enumerate(
        [(2, "circle", 0), (3, "ones", 1), (2, "random", 1), (5, "circle", 2)] * 2
    ):
        steps = (1, 4) if i % 2 else (0, 2, 7)
        calls = [f"mp:mask_side=8,steps={s},blur_radius={radius},init={init},seed={seed}" for s in steps]
        rows.append((bind(f, calls, [i % 3] * len(calls)), images[i // 4]))
        assert len({run_key(parse_call(call)) for call in calls}) == 1
    rows = rows[:7]
    found, passes = raw_together(rows, width)
    assert [len(raws) for raws in found] == [3, 2, 3, 2, 3, 2, 3]
    assert passes.backward == 2 * 7 * width, "the last batch is filled up"
    for (explainers, x), raws in zip(rows, found, strict=True):
        for one, raw in zip(explainers, raws, strict=True):
            ((alone,),), _ = raw_together([([one], x)], width)
            assert torch.equal(raw.map, alone.map)
            assert raw.notes == alone.notes
            assert raw.passes == one.raw(x).passes
    keys = {
        run_key(parse_call(f"mp:steps=3,init={init},seed={s}"), beside=True)
        for init in ("ones", "circle")
        for s in (0, 1)
    }
    assert len(keys) == 1


def test_rows_of_one_image_look_for_its_disc_once() -> None:
    f = small()
    calls = [f"mp:mask_side=8,steps=3,seed={seed},blur_radius={r}" for seed in (0, 1) for r in (2, 3)]
    pixels = X.numpy()
    rows = [([one], torch.from_numpy(pixels)) for one in bind(f, calls)]
    for width in (4, 6):
        found, passes = raw_together(rows, width)
        assert (passes.forward, passes.backward) == (36 + 3 * width, 3 * width)
        assert {raw.notes["circle_radius"] for (raw,) in found} == {found[0][0].notes["circle_radius"]}
        assert all(raw.passes.forward == 36 + 3 for (raw,) in found)


def test_what_differs_elsewhere_is_refused() -> None:
    f = small()
    for calls in (["sg:n=3", "sg:n=3,seed=1"], ["sg:n=3", "ug:n=3"], ["grad", "grad:output=prob"]):
        with pytest.raises(ValueError, match="cannot share a run"):
            next(raw_across(bind(f, calls), X))
    with pytest.raises(ValueError, match="cannot share a run"):
        next(raw_across(bind(f, ["sg", "sg"], [0, 1]), X))
    with pytest.raises(ValueError, match="cannot share a run"):
        next(raw_across([*bind(f, ["sg:n=3"]), *bind(small(), ["sg:n=4"])], X))
    with pytest.raises(ValueError, match="ascending"):
        list(raw_across(bind(f, ["sg:n=9", "sg:n=3"]), X))
    with pytest.raises(ValueError, match="cannot share a run"):
        raw_together([(bind(f, ["mp:steps=1", "mp:steps=1,seed=1"]), X)], 1)
    with pytest.raises(ValueError, match="cannot share a run"):
        raw_together([(bind(f, ["bsm"]), X), (bind(f, ["bsm:seed=1"]), X)], 2)
    twice = list(raw_across(bind(f, ["grad", "grad"]), X))
    assert [passes.backward for _, passes in twice] == [1, 1], "an entry without the trait runs one after the other"


def test_the_key_of_a_run_leaves_out_what_may_differ() -> None:
    def key(expression: str, beside: bool = False) -> str | None:
        return run_key(parse_call(expression), beside)

    assert key("grad") is None
    assert key("sg+softplus") is None, "the outermost wrapper decides"
    assert key("sg:n=3") == key("sg:n=9") == key("sg:n=9,sign=abs,reduce=max")
    others = {key(f"sg:n=9,{more}") for more in ("seed=1", "spread=0.3", "sign=abs_sample", "output=prob")}
    assert len({key("sg"), key("vargrad"), key("sg+smooth"), None, *others}) == 8
    assert key("sg+smooth:n=3") == key("sg+smooth:n=4,agg=median")
    assert len({key(e) for e in ("sg:n=3+smooth", "sg:n=4+smooth", "sg:n=3+smooth:seed=1", "grad+topk+smooth")}) == 4
    assert key("mp:steps=3") == key("mp:steps=4") != key("mp:steps=4,seed=1")
    assert key("mp:steps=3", True) == key("mp:steps=4,seed=1,init=ones,blur_radius=3", True) != key("mp:jitter=0", True)
    assert key("bsm") is not None
    assert over_names(parse_call("lime")) == ("n", "kernel_width", "target")
    assert over_values(parse_call("lime:n=7,kernel_width=0.5")) == (7, 0.5)
    assert over_values(parse_call("lime:n=7+smooth:n=4")) == (4, "mean")
    assert over_values(parse_call("grad")) == ()


def test_traits_are_complete_and_name_parameters() -> None:
    def method(f, x, target, *, n: Annotated[int, Param("draws")] = 1):  # type: ignore[no-untyped-def]
        """Nothing."""

    for kind, traits in (
        ("method", {"over": ("n",)}),
        ("method", {"settings": method}),
        ("method", {"together": method, "over": ("n",)}),
        ("method", {"settings": method, "over": ("n",), "beside": ()}),
        ("method", {"settings": method, "over": ("steps",)}),
        ("method", {"settings": method, "over": ("output",)}),
        ("method", {"together": method, "over": (), "beside": ("seed",)}),
        ("wrapper", {"settings": method, "over": ("target",)}),
    ):
        with pytest.raises(TypeError, match=r"`over`|`beside`|to share runs over"):
            Registry(kind, "attrsens.similarity")("new", version=1, **traits)(method)
    Registry("method", "attrsens.similarity")("new", version=1, settings=method, over=("n", "target"))(method)


def test_on_the_real_network_shared_and_unshared_settings_agree(lite0, chelsea) -> None:
    for calls, targets, passes in (
        (["sg:n=2", "sg:n=10"], [281, 281], (10, 10)),
        (["ig:steps=2", "ig:steps=4"], [281, 281], (5, 5)),
        (["lime:n=10", "lime:n=20", "lime:n=20"], [281, 281, 282], (20, 0)),
        (["sp:stride=60", "sp:stride=60"], [281, 282], (17, 0)),
        (["grad+smooth:n=2", "grad+smooth:n=5,agg=median"], [281, 281], (5, 5)),
    ):
        explainers = bind(lite0, calls, targets)
        raws, price = shared(explainers, chelsea)
        assert price == passes
        for one, raw in zip(explainers, raws, strict=True):
            want = one.raw(chelsea)
            close = torch.nn.functional.cosine_similarity(raw.map.flatten(), want.map.flatten(), 0)
            assert float(close) > 0.9999, calls  # a batch of another shape flips a few ReLUs
            assert raw.notes == pytest.approx(want.notes, rel=1e-3, abs=1e-4)
