"""Faithfulness and completeness, and what they and infidelity share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from judged import MEAN, STD, case, lively, outcome, settle, uneven, value
from scipy.stats import pearsonr
from toys import Quadratic, draw, linear, uniform

import attrsens
from attrsens.engine.judge import judge
from attrsens.scores.faithfulness import _Subsets


@pytest.mark.parametrize("score", ["infidelity:n=40", "infidelity:perturbation=gaussian,n=40", "faithfulness:n=40"])
def test_all_maps_share_one_stream(score: str) -> None:
    seen: list[int] = []
    f = lively(batch=16)
    f.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    x, maps = uniform(3, 12, 12, seed=3), [draw(3, 12, 12, seed=i) for i in range(5)]
    shorter = score.replace("n=40", "n=20")
    found, bench = settle(f, x, maps, [score, shorter])
    assert bench.passes.forward == 48
    assert seen[-3:] == [16] * 3
    assert [o.passes.forward for o in found[:2]] == [40, 20]
    assert found[1] == outcome(f, x, maps[0], shorter), "the first images of the longer run"
    variants = [score, f"{score},seed=1", f"{score},output=prob"]
    together, _ = settle(f, x, maps[:1], variants)
    assert len({o.value for o in together}) == 3
    assert together == [outcome(f, x, maps[0], v) for v in variants], "none takes another's images"


@pytest.mark.parametrize("score", ["infidelity:n=40", "infidelity:perturbation=gaussian,n=40", "faithfulness:n=40"])
def test_what_changes_nothing(score: str) -> None:
    f, x, heatmap = lively(batch=16), uniform(3, 12, 12, seed=3), draw(3, 12, 12, seed=4)
    base, before = outcome(f, x, heatmap, score), x.clone()
    assert outcome(f, x, heatmap, score) == base, "to the bit"
    assert value(lively(batch=1), x, heatmap, score) == pytest.approx(base.value, abs=1e-5)
    assert value(f, x, 1e-6 * heatmap, score) == pytest.approx(base.value, rel=1e-5), "nor does the map's scale"
    assert torch.equal(before, x)


@pytest.mark.parametrize("space", ["pixel", "normalized"])
@pytest.mark.parametrize("perturbation", ["uniform", "zero"])
def test_faithfulness_from_its_definition(perturbation: str, space: str) -> None:
    f, x, heatmap = lively(), uniform(3, 12, 12, seed=3), draw(3, 12, 12, seed=4)
    score = f"faithfulness:n=60,share=0.3,perturbation={perturbation}"
    probes = _Subsets(case(f, x, heatmap, score), 0.3, perturbation, 0)
    logits = lambda z: float(f.network(((z - MEAN) / STD)[None])[0, 1])  # noqa: E731
    flat = (heatmap if space == "pixel" else heatmap / STD).flatten().double().tolist()
    sums, falls = [], []
    with torch.no_grad():
        for i in range(60):
            chosen, off = probes.draw(i)
            changed = x.flatten().clone()
            changed[chosen] -= torch.from_numpy(off)
            falls.append(logits(x) - logits(changed.reshape(x.shape)))
            if perturbation == "zero":
                sums.append(sum(heatmap.flatten().double().tolist()[j] for j in chosen))
            else:
                sums.append(sum(e * flat[j] for j, e in zip(chosen, off, strict=True)))
    want = pearsonr(sums, falls).statistic
    assert value(f, x, heatmap, score, target=1, space=space) == pytest.approx(want, abs=1e-5)
    assert value(f, x, -heatmap, score, target=1, space=space) == pytest.approx(-want, abs=1e-5)


@pytest.mark.parametrize("share", [0.001, 0.15, 0.5, 0.8, 1.0])
def test_subsets_and_noise(share: float) -> None:
    f, x = lively(), uniform(3, 12, 12, seed=3)
    probes = _Subsets(case(f, x, x, "faithfulness"), share, "uniform", 0)
    size = max(1, round(share * 432))
    flat = x.flatten().numpy()
    count, noise, pairs = np.zeros(432), [], []
    for i in range(600):
        chosen, off = probes.draw(i)
        assert len(chosen) == len(off) == len(set(chosen.tolist())) == size
        assert np.all(np.abs(off) <= 0.5)
        assert np.all((flat[chosen] - off >= -1e-7) & (flat[chosen] - off <= 1 + 1e-7))
        free = (off > flat[chosen] - 1) & (off < flat[chosen])
        noise += off[free & (np.abs(flat[chosen] - 0.5) < 0.01)].tolist()
        count[chosen] += 1
        pairs.append({0, 1} <= set(chosen.tolist()))
    expected = size / 432
    spread = np.sqrt(600 * expected * (1 - expected))
    assert np.all(np.abs(count - 600 * expected) <= 5 * spread + 1e-9), "every element alike"
    assert abs(np.mean(pairs) - expected * (size - 1) / 431) <= 5 * np.sqrt(expected**2 / 600) + 1e-9
    if len(noise) > 500:
        assert np.var(noise) == pytest.approx(1 / 12, rel=0.15)
    images = probes.images(range(3, 7))
    assert torch.equal(images[2], probes.images(range(5, 6))[0]), "an image depends on its index alone"
    assert int((images[0] != x).sum()) <= size


def test_faithfulness_on_a_linear_network() -> None:
    """1 for w, not for x w (science C-4: .885); without weights 1 for x w; a sum with weights would not be."""
    found = []
    for seed in range(6):
        f, w = linear(seed=seed, side=12)
        x = uniform(3, 12, 12, seed=seed + 100)
        assert value(f, x, w[0], "faithfulness") == pytest.approx(1, abs=1e-6)
        assert value(f, x, w[0] * x, "faithfulness:perturbation=zero") == pytest.approx(1, abs=1e-6)
        assert value(f, x, w[0], "faithfulness:perturbation=zero") < 0.97
        found.append(value(f, x, w[0] * x, "faithfulness"))
    x = uniform(10**6, seed=1)
    e = torch.minimum(torch.maximum(uniform(10**6, seed=2) - 0.5, x - 1), x)
    expected = float((x * e * e).mean() / ((e * e).mean() * (x * x * e * e).mean()).sqrt())
    assert expected == pytest.approx(0.885, abs=0.005)
    assert np.mean(found) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("space", ["pixel", "normalized"])
def test_faithfulness_in_the_space_of_the_map(space: str) -> None:
    f, w = uneven()
    x, slope = uniform(3, 8, 8, seed=2), w[1] if space == "pixel" else w[1] * STD
    assert value(f, x, slope, "faithfulness", 1, space=space) == pytest.approx(1, abs=1e-6)
    other = "normalized" if space == "pixel" else "pixel"
    assert value(f, x, slope, "faithfulness", 1, space=other) < 0.99
    assert judge(f, x, 1, f"grad:space={space}", ["faithfulness"])[0].value == pytest.approx(1, abs=1e-6)


def test_faithfulness_that_does_not_exist() -> None:
    f, x = lively(), uniform(3, 12, 12, seed=3)
    assert "map's sums" in (outcome(f, x, torch.zeros(3, 12, 12), "faithfulness:n=9").reason or "")
    ones = torch.ones(3, 12, 12)
    assert "map's sums" in (outcome(f, x, ones, "faithfulness:n=9,perturbation=zero").reason or "")
    black = torch.zeros(3, 12, 12)
    assert "never changes" in (outcome(f, black, draw(3, 12, 12), "faithfulness:n=9,perturbation=zero").reason or "")
    found = outcome(f, x, draw(3, 12, 12), "faithfulness:n=9,perturbation=zero,share=1")
    assert found.value is None
    assert value(f, x, ones, "faithfulness:n=9,share=1") != 0


# -- completeness ----------------------------------------------------------------------------------------------------


def test_completeness_of_a_linear_network() -> None:
    f, w = uneven()
    x = uniform(3, 8, 8, seed=2)
    fall = abs(float((w[1] * x).sum()))
    for method in (
        "ig:output=logit",
        "ig:output=logit,reduce=mean,sign=abs",
        "ig:output=logit,space=normalized",
        "deeplift",
    ):
        (found,) = judge(f, x, 1, method, ["completeness"], image="toy")
        assert found.value == pytest.approx(0, abs=1e-4), method
        assert found.passes.forward == 1
    (found,) = judge(f, x, 1, "ig:output=logit,rule=captum_trapezoid,steps=20", ["completeness"], image="toy")
    assert found.value == pytest.approx(fall / 20, rel=1e-4), "Captum's weights sum to 19/20"
    assert found.details["relative"] == pytest.approx(1 / 20, rel=1e-4)


@pytest.mark.parametrize("output", ["logit", "prob"])
@pytest.mark.parametrize("baseline", ["black", "white", "grey", "mean", "random", "blurred"])
def test_completeness_is_what_the_method_notes(baseline: str, output: str) -> None:
    f, x = lively(), uniform(3, 12, 12, seed=3)
    call = f"ig:steps=3,baseline={baseline},output={output},trials=2"
    spec = attrsens.METHODS["ig"]
    own = {"steps": 3, "baseline": baseline, "output": output, "trials": 2}
    noted = attrsens.Explainer(f, spec, 1, spec.complete(own), image="toy").raw(x).notes["completeness_gap"]
    (found,) = judge(f, x, 1, call, ["completeness"], image="toy")
    assert found.value == pytest.approx(noted, abs=2e-5)
    assert found.value > 1e-3
    assert (found.details["relative"] is None) == (baseline in ("random", "blurred"))


def test_completeness_of_paths_to_the_boundary() -> None:
    """BND: along a straight path ig and big complete, the better the more points."""
    f, x = lively(), uniform(3, 12, 12, seed=3)
    target = int(f.view().logits(x[None]).argmax())
    short = "search_steps=8,doublings=0"
    gaps = [
        judge(f, x, target, f"big:{short},rule=trapezoid,steps={steps}", ["completeness"], image="toy")[0]
        for steps in (2, 200)
    ]
    assert gaps[0].value > 5 * gaps[1].value
    assert gaps[0].passes.forward == 0
    (agi,) = judge(f, x, target, "agi:k=2,steps=3", ["completeness"], image="toy")
    assert agi.value is not None
    bend = Quadratic((lambda a: a + a.T)(draw(27, 27, seed=1)))
    q = attrsens.Classifier(bend, [0.0] * 3, [1.0] * 3, crop=3, device="cpu")
    z = uniform(3, 3, 3, seed=5)
    ig = [
        judge(q, z, 0, f"ig:output=logit,steps=4,rule={rule}", ["completeness"], image="toy")[0].value
        for rule in ("trapezoid", "left")
    ]
    assert ig[0] == pytest.approx(0, abs=1e-5)
    assert ig[1] == pytest.approx(abs(float(q.view().logits(z[None])[0, 0])) / 4, rel=1e-4)


def test_completeness_that_does_not_exist() -> None:
    f, x = lively(), uniform(3, 12, 12, seed=3)
    for method, reason in [
        ("grad", "no baseline"),
        ("gi", "no baseline"),
        ("sp:patch_size=3", "no baseline"),
        ("ig:sign=abs_sample", "magnitudes"),
        ("agi:k=2,steps=2,mode=reference", "no baseline"),
        ("big:search_steps=2,doublings=0+topk:k=10", "wrapped"),
    ]:
        (found,) = judge(f, x, 1, method, ["completeness"], image="toy")
        assert found.value is None, method
        assert reason in (found.reason or ""), method


def test_a_wrapped_map_is_measured_itself() -> None:
    f, w = uneven()
    x = uniform(3, 8, 8, seed=2)
    fall = abs(float((w[1] * x).sum()))
    (found,) = judge(f, x, 1, "ig:output=logit,steps=2+topk:k=5", ["completeness"], image="toy")
    score = float(f.view().logits(x[None])[0, 1] - f.view().logits(torch.zeros(1, 3, 8, 8))[0, 1])
    assert found.value == pytest.approx(abs(1 - score), rel=1e-4)
    (found,) = judge(f, x, 1, "ig:output=logit,steps=2+smooth:n=2,radius=0", ["completeness"], image="toy")
    assert found.value == pytest.approx(0, abs=1e-5 * fall + 1e-4)


def test_the_black_image_is_looked_at_once() -> None:
    from attrsens.engine.bench import Bench, Job
    from attrsens.engine.cell import parse_call
    from attrsens.engine.judge import case_of
    from attrsens.spec import SCORES

    f, x = lively(batch=1), uniform(3, 12, 12, seed=3)
    spec = attrsens.METHODS["ig"]
    bound = attrsens.Explainer(f, spec, 1, spec.complete({"steps": 2, "output": "logit"}), image="toy")
    raw, logits = bound.raw(x), f.view().logits(x[None])[0]
    calls = [parse_call(s, registry=SCORES) for s in ("completeness", "deletion:fill=black,step=72")]
    bench = Bench(f, lambda text, t: raw)
    bench.settle([Job(case_of(bound, call, x, logits, raw), call) for call in calls])
    assert bench.passes.forward == 2
