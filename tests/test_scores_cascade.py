"""Cascade randomisation: which weights change, to what, and what a noisy map's similarity is worth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr
from torch import Tensor, nn
from toys import STYLES, Linear, SmallNet, draw, explain, small, uniform

import attrsens
from attrsens import METHODS
from attrsens.engine.bench import Bench, Job
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.engine.judge import case_of, judge
from attrsens.models.nets import find_net
from attrsens.models.randomise import Randomised, find_units, twin, xavier
from attrsens.models.wrappers.smoothed import smoothed
from attrsens.models.wrappers.softplus import softplus
from attrsens.scores.cascade import evenly
from attrsens.seeds import Stream
from attrsens.spec import SCORES, Param

STREAM = Stream(0, "toy", "cascade weights")


def one(f: attrsens.Classifier, x: Tensor, method: str, score: str, target: int = 0, image: str = "toy"):
    (outcome,) = judge(f, x, target, method, [score], image=image)
    return outcome


class Deep(nn.Module):
    """Three linear layers and nothing between: the gradient is a product of matrices."""

    def __init__(self, size: int = 48) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(size, 20), nn.Linear(20, 30), nn.Linear(30, 4)
        with torch.no_grad():
            for k, p in enumerate(self.parameters()):
                p.copy_(draw(*p.shape, seed=k))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x.flatten(1))))


def deep() -> attrsens.Classifier:
    return attrsens.Classifier(Deep(), [0.0] * 3, [1.0] * 3, crop=4, device="cpu")


def glorot(stream: Stream, place: int, rows: int, columns: int) -> np.ndarray:
    """Xavier's uniform draws, typed from the definition."""
    bound = np.sqrt(6 / (rows + columns))
    return (2 * stream.uniform([place], (rows, columns))[0] - 1) * bound


@pytest.mark.parametrize(
    ("order", "stages"),
    [
        ("top_down", [(0, 0, 1), (0, 1, 1), (1, 1, 1)]),
        ("bottom_up", [(1, 0, 0), (1, 1, 0), (1, 1, 1)]),
        ("single", [(0, 0, 1), (0, 1, 0), (1, 0, 0)]),
    ],
)
def test_each_order_draws_the_layers_it_says(order: str, stages: list[tuple[int, ...]]) -> None:
    """The gradient is C[t] B A: every stage against that product with the layers that are new."""
    net = Deep()
    trained = [p.detach().numpy() for p in (net.a.weight, net.b.weight, net.c.weight)]
    new = [glorot(STREAM, k, *w.shape) for k, w in enumerate(trained)]
    target = 2
    clean = np.abs(trained[2][target] @ trained[1] @ trained[0])
    expected = []
    for which in stages:
        a, b, c = (new[k] if drawn else trained[k] for k, drawn in enumerate(which))
        expected.append(spearmanr(clean, np.abs(c[target] @ b @ a)).statistic)
    found = one(deep(), uniform(3, 4, 4), "grad", f"cascade:order={order}", target)
    np.testing.assert_allclose(found.curve, expected, atol=1e-6)
    assert found.value == pytest.approx(np.mean(expected), abs=1e-6)
    names = [f"at {n}" for n in ("abc" if order == "bottom_up" else "cba")]
    assert [found.details[name] for name in names] == found.curve
    assert (found.passes.forward, found.passes.backward) == (3, 3)


def test_a_random_top_makes_the_map_independent() -> None:
    """f = W x: the map is a row of W, and a row of independent numbers afterwards."""
    side = 32
    weight = draw(4, 3 * side * side)
    f = attrsens.Classifier(Linear(weight, draw(4)), [0.0] * 3, [1.0] * 3, crop=side, device="cpu")
    found = one(f, uniform(3, side, side), "grad", "cascade", 1)
    assert abs(found.value) < 4 / np.sqrt(3 * side * side)
    assert found.value == pytest.approx(
        spearmanr(weight[1].abs(), np.abs(glorot(STREAM, 0, 4, 3 * side * side)[1])).statistic, abs=1e-6
    )


def test_weights_are_of_the_image_and_the_seed() -> None:
    f, x = small(), uniform(3, 16, 16)
    values = [one(f, x, "grad", s, image=i).curve for s in ("cascade", "cascade:seed=1") for i in ("toy", "b")]
    assert len({tuple(v) for v in values}) == 4
    assert one(f, x, "grad", "cascade").curve == values[0], "equal to the bit"


# -- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [nn.Linear(7, 5), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 6, 3, groups=6)])
def test_xavier_is_torchs(module: nn.Module) -> None:
    inp, out = nn.init._calculate_fan_in_and_fan_out(module.weight)
    bound = (6 / (inp + out)) ** 0.5
    assert xavier(module.weight) == pytest.approx(bound)
    network = Randomised(
        attrsens.Classifier(nn.Sequential(module), [0.0], [1.0], device="cpu", fold=False),
        "layer",
        "keep",
        "init",
        STREAM,
    )
    network.draw(network.units[0])
    weight = network.units[0].modules[0].weight
    assert float(weight.abs().max()) <= bound
    assert float(weight.max()) > 0.7 * bound > -0.7 * bound > float(weight.min())


def test_a_drawn_unit_keeps_its_bias_and_forgets_its_norm() -> None:
    f = small(fold=False)
    before = {k: v.clone() for k, v in f.network.state_dict().items()}
    for bias in ("keep", "zero"):
        network = Randomised(f, "layer", bias, "init", STREAM)
        assert [u.name for u in network.units] == ["conv1", "conv2", "fc"]
        network.draw(network.units[1])
        net = network.classifier.network
        assert torch.equal(net.conv2.bias, before["conv2.bias"] if bias == "keep" else torch.zeros(8))
        assert torch.equal(net.bn2.weight, torch.ones(8))
        assert torch.equal(net.bn2.running_var, torch.ones(8))
        assert not net.bn2.bias.any()
        assert not net.bn2.running_mean.any()
        for name in ("conv1.weight", "conv1.bias", "bn1.weight", "bn1.running_mean", "fc.weight", "fc.bias"):
            assert torch.equal(net.state_dict()[name], before[name]), name
        assert not torch.equal(net.conv2.weight, before["conv2.weight"])
        network.restore(network.units[1])
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(torch.equal(v, before[k]) for k, v in f.network.state_dict().items()), "the original is as it was"


@pytest.mark.parametrize("bias", ["keep", "zero"])
@pytest.mark.parametrize("unit", [0, 1, 2])
def test_a_folded_norm_is_reset_as_if_it_were_there(bias: str, unit: int) -> None:
    """Its mean and shift are in the convolution's bias: kept as it is, they would stay trained."""
    images, found = uniform(4, 3, 16, 16), []
    for fold in (True, False):
        f = small(fold=fold)
        f.view().settle(images[0])
        assert isinstance(f.network.bn1, nn.BatchNorm2d) is not fold
        network = Randomised(f, "layer", bias, "init", STREAM)
        network.draw(network.units[unit])
        found.append(network.classifier.logits(images))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("style", STYLES)
def test_folding_hardly_changes_the_value(style: str) -> None:
    values = [one(small(style, fold=fold), uniform(3, 16, 16), "grad", "cascade").value for fold in (True, False)]
    assert values[0] == pytest.approx(values[1], abs=2e-3)


def test_batches_of_one() -> None:
    values = [one(small(batch=b), uniform(3, 16, 16), "sg:n=5", "cascade").value for b in (1, 16)]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_nothing_of_the_classifier_changes() -> None:
    f, x = small(), uniform(3, 16, 16)
    before = f.logits(x[None])
    state = {k: v.clone() for k, v in f.network.state_dict().items()}
    one(f, x, "sg:n=3", "cascade:unit=layer")
    one(f, x, "gradcam", "cascade:order=single")
    assert torch.equal(f.logits(x[None]), before)
    assert all(torch.equal(v, state[k]) for k, v in f.network.state_dict().items())


@pytest.mark.parametrize("wrap", [softplus, smoothed])
def test_model_wrappers_stay(wrap) -> None:
    bare, x = SmallNet("functional"), uniform(2, 3, 16, 16)
    steps = attrsens.Classifier(bare, [0.45] * 3, [0.25] * 3, crop=16, device="cpu").preprocess
    f = attrsens.Classifier(wrap(bare, steps), steps.mean, steps.std, crop=16, device="cpu")
    plain = attrsens.Classifier(bare, steps.mean, steps.std, crop=16, device="cpu")
    f.logits(x), plain.logits(x)
    other = twin(f)
    assert torch.equal(other.logits(x), f.logits(x))
    assert other.copies == f.copies
    drawn = []
    for g in (f, plain):
        network = Randomised(g, "layer", "keep", "init", STREAM)
        assert [u.name for u in network.units] == ["conv1", "conv2", "fc"]
        for unit in network.units:
            network.draw(unit)
        drawn.append(network.classifier.logits(x))
    assert float((drawn[0] - drawn[1]).abs().max()) > 1e-3, "the wrapper is at work"
    again = Randomised(plain, "layer", "keep", "init", STREAM)
    for unit in again.units:
        again.draw(unit)
    assert torch.equal(again.classifier.logits(x), drawn[1])


def test_blocks_of_known_networks() -> None:
    resnet = find_net("cifar-resnet18").build(10)
    blocks = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    assert [u.name for u in find_units(resnet, "block")] == ["conv1", *blocks, "linear"]
    assert resnet.bn1 in find_units(resnet, "block")[0].modules
    assert len(find_units(resnet, "layer")) == 21
    assert len(find_units(resnet, "layer", "skip")) == 18
    left = {m for u in find_units(resnet, "block", "skip") for m in u.modules}
    assert resnet.layer2[0].shortcut[0] not in left
    assert resnet.layer2[0].conv1 in left
    lite = find_net("lite0").build(1000)
    assert [u.name for u in find_units(lite, "block")] == [
        "stem", *(f"blocks.{i}" for i in range(16)), "head", "classifier",
    ]  # fmt: skip
    assert len(find_units(lite, "layer")) == 50
    mnist = find_net("mnist-cnn").build(10)
    assert [u.name for u in find_units(mnist, "block")] == [u.name for u in find_units(mnist, "layer")]


def test_blocks_are_found_inside_what_holds_most_weights() -> None:
    torchvision = pytest.importorskip("torchvision")
    vit = torchvision.models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=16
    )
    names = [u.name for u in find_units(vit, "block")]
    assert [n for n in names if "encoder_layer" in n] == [f"encoder.layers.encoder_layer_{i}" for i in range(3)]
    owned = [m for u in find_units(vit, "block") for m in u.modules]
    assert len(owned) == len(set(owned))
    assert {id(p) for m in owned for p in m._parameters.values() if p is not None} == {id(p) for p in vit.parameters()}


def test_no_weights() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    f = attrsens.Classifier(Bare(), [0.0] * 3, [1.0] * 3, device="cpu")
    found = one(f, uniform(3, 4, 4), "grad", "cascade")
    assert found.value is None
    assert "no weights" in found.reason


# -- stages -----------------------------------------------------------------------------------------------------


def test_stages_are_spread_and_cumulative() -> None:
    assert evenly(19, 12)[0] == 0
    assert evenly(19, 12)[-1] == 18
    assert len(set(evenly(19, 12))) == 12
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(7, 1) == [6]
    f, x = deep(), uniform(3, 4, 4)
    every, ends, last = (one(f, x, "grad", f"cascade:stages={k}").curve for k in (3, 2, 1))
    assert ends == [every[0], every[2]], "what lies between is drawn all the same"
    assert last == [every[2]]


def test_a_dead_stage_is_left_out() -> None:
    class Dying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(48, 5), nn.Linear(5, 2)
            with torch.no_grad():
                self.a.weight.copy_(1 + draw(5, 48))
                self.a.bias.fill_(-9.0)
                self.b.weight.copy_(1 + uniform(2, 5))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x.flatten(1)).relu())

    f = attrsens.Classifier(Dying(), [0.0] * 3, [1.0] * 3, device="cpu")
    found = one(f, uniform(3, 4, 4), "grad", "cascade")
    assert found.details["refused"] == 1
    assert found.details["at a"] is None
    assert found.curve is None
    assert found.value == pytest.approx(found.details["at b"])
    only = one(f, uniform(3, 4, 4), "grad", "cascade:order=bottom_up,stages=1")
    assert only.value is None
    assert "no stage" in only.reason


def test_maps_that_know_no_network() -> None:
    f, x = small(), uniform(3, 16, 16)
    edges = one(f, x, "edges", "cascade")
    assert edges.value == 1
    assert set(edges.curve) == {1.0}
    assert "constant" in one(f, x, "constant", "cascade").reason
    assert "two draws" in one(f, x, "random", "cascade").reason
    assert abs(one(f, x, "random", "cascade:corrected=false").value) < 0.2


@pytest.mark.parametrize(("score", "maps"), [("cascade", 2 + 3 * 2), ("cascade:corrected=false", 3)])
def test_passes_made_are_those_that_are_told_beforehand(score: str, maps: int) -> None:
    f, x = small(), uniform(3, 16, 16)
    counts = []
    for dry in (True, False):
        call = parse_call(score, registry=SCORES)
        bound = explainer(f, parse_call("sg:n=3"), 0, "toy")
        bench = Bench(f, lambda text, t: pytest.fail("no other method"), dry)
        job = Job(case_of(bound, call, x, f.logits(x[None])[0], bound.raw(x)), call)
        bench.settle([job])
        counts.append((job.passes.forward, job.passes.backward, bench.passes.forward, bench.passes.backward))
    assert counts[0] == counts[1] == (3 * maps,) * 4


@pytest.mark.parametrize("method", ["sg:n=2", "lime:n=20,segments=6", "bsg:n=2,search_steps=0", "grad+smooth:n=2"])
def test_fresh_draws_differ(method: str) -> None:
    """Also where the draws are the same for every image, so that another image hash would draw nothing new."""
    x = uniform(3, 32, 32)
    bound = explainer(small(), parse_call(method), 0, "toy")
    maps = [e.raw(x).map for e in (bound, bound.redrawn(0), bound.redrawn(1), bound.redrawn(0))]
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[1], maps[2])
    assert torch.equal(maps[1], maps[3])


# -- what noise does --------------------------------------------------------------------------------------------


class Half(nn.Module):
    """Half of every weight is a buffer, which nobody draws anew: maps of two networks correlate by about one half."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("fixed", draw(3, size, seed=5))
        self.fc = nn.Linear(size, 3)
        bound = (6 / (3 + size)) ** 0.5
        with torch.no_grad():
            self.fc.weight.copy_(draw(3, size) * bound / 3**0.5)
        self.fixed *= bound / 3**0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) + x.flatten(1) @ self.fixed.T


@pytest.fixture
def noisy() -> Iterator[str]:
    """A method: the gradient and noise, whose deviation is a multiple of the gradient's."""

    @METHODS("noisy", version=1, gradient=True, cost="1 F + 1 B")
    def noisy(
        f: attrsens.Classifier,
        x: Tensor,
        target: int,
        *,
        sigma: Annotated[float, Param("of the gradient's deviation")] = 1.0,
        seed: Annotated[int, Param("seed")] = 0,
    ) -> Tensor:
        """A gradient with noise."""
        g = f.gradient(x, target)
        return g + sigma * g.std() * torch.from_numpy(f.stream(seed, "noisy").normal([0], tuple(x.shape))[0])

    yield "noisy"
    METHODS.remove("noisy")


def test_the_correction_finds_what_is_there_without_noise(noisy: str) -> None:
    """Science C-8, S-1: uncorrected, a method looks the better the noisier it is."""
    side = 100
    f = attrsens.Classifier(Half(3 * side * side), [0.0] * 3, [1.0] * 3, device="cpu")
    x = uniform(3, side, side)
    truth = one(f, x, "grad", "cascade:sign=signed")
    assert truth.details["reliability"] == 1
    assert truth.value == truth.details["uncorrected"]
    assert 0.3 < truth.value < 0.6
    for sigma in (0.5, 1.0):
        found = one(f, x, f"noisy:sigma={sigma}", "cascade:sign=signed")
        raw = one(f, x, f"noisy:sigma={sigma}", "cascade:sign=signed,corrected=false")
        assert found.value == pytest.approx(truth.value, abs=0.02)
        assert raw.value == pytest.approx(found.details["uncorrected"], abs=0.02)
        assert raw.value < truth.value * (0.9 if sigma < 1 else 0.6)
        assert found.details["reliability"] == pytest.approx(found.details["lowest_reliability"], abs=0.03)
    quiet = one(f, x, "noisy:sigma=0", "cascade:sign=signed")
    assert quiet.value == pytest.approx(truth.value, abs=1e-6)


def test_what_is_found_is_the_correlation_of_expected_ranks(noisy: str) -> None:
    """Of magnitudes too, whose expectation is not the magnitude without noise: against the mean over many draws."""
    net, x = Half(3 * 60 * 60), uniform(3, 60, 60)
    f = attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, device="cpu")
    new = glorot(STREAM, 0, 3, 3 * 60 * 60)[0] + net.fixed[0].numpy()
    rng, means = np.random.default_rng(0), []
    for g in ((net.fc.weight[0] + net.fixed[0]).detach().numpy(), new):
        draws = np.abs(g + 0.7 * g.std(ddof=1) * rng.normal(size=(150, g.size)))
        means.append(rankdata(draws, axis=1).mean(0))
    found = one(f, x, "noisy:sigma=0.7", "cascade")
    assert found.value == pytest.approx(np.corrcoef(*means)[0, 1], abs=0.04)
    assert found.details["uncorrected"] < found.value - 0.06


def test_hardly_reproducible_maps_are_refused(noisy: str) -> None:
    f = attrsens.Classifier(Half(3 * 30 * 30), [0.0] * 3, [1.0] * 3, device="cpu")
    found = one(f, uniform(3, 30, 30), "noisy:sigma=8", "cascade:sign=signed")
    assert found.value is None
    assert "two draws of the map correlate" in found.reason


class Waves(nn.Module):
    """Gradients that turn with the noise by phases that are weights, inside an envelope that is none."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("envelope", draw(size, seed=3).mul(0.6).exp())
        self.phase = nn.Parameter(draw(2, size))

    def forward(self, x: Tensor) -> Tensor:
        return (self.envelope * torch.sin(60 * x.flatten(1)[:, None] + 3000 * self.phase)).sum(2)


def test_magnitudes_inside_the_average_make_independent_maps_alike() -> None:
    """Trap 17 and science C-8: the maps share an envelope and nothing else."""
    f = attrsens.Classifier(Waves(3 * 30 * 30), [0.0] * 3, [1.0] * 3, device="cpu")
    x = uniform(3, 30, 30)
    after = one(f, x, "sg:n=12,spread=0.3", "cascade:corrected=false").value
    inside = one(f, x, "sg:n=12,spread=0.3,sign=abs_sample", "cascade:corrected=false").value
    assert after < 0.4, "published simulation: .27"
    assert inside > 0.75, "published simulation: .84"
    signed = one(f, x, "sg:n=12,spread=0.3", "cascade:corrected=false,sign=signed").value
    assert abs(signed) < 0.1


def test_lite0(lite0: attrsens.Classifier, chelsea: Tensor) -> None:
    target = int(lite0.view().logits(chelsea[None]).argmax())
    state = {k: v.clone() for k, v in lite0.network.state_dict().items()}
    found = one(lite0, chelsea, "grad", "cascade:stages=3", target)
    top, middle, bottom = found.curve
    assert 1 > top > 0.2
    assert abs(bottom) < 0.2
    assert middle > bottom
    assert found.details["units"] == 19
    assert found.details["randomised"] == 1
    assert all(torch.equal(v, state[k]) for k, v in lite0.network.state_dict().items())


def test_one_channel() -> None:
    net = find_net("mnist-cnn").build(10)
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            p.copy_(draw(*p.shape, seed=k) * 0.1)
    f = attrsens.Classifier(net, [0.0], [1.0], device="cpu")
    found = one(f, uniform(1, 28, 28), "grad", "cascade")
    assert found.value is not None
    assert len(found.curve) == 4
    assert explain(f, "grad", uniform(1, 28, 28)).shape == (1, 28, 28)
