"""What the papers' theorems and definitions say of small networks, checked without the methods' own code."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import Linear, draw, explain, linear, small, uniform

import attrsens
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.methods.agi import classes
from attrsens.seeds import Stream

NOISY = ["sg", "ug", "bsg", "bsm"]


def of(f: attrsens.Classifier, expression: str, x: torch.Tensor, target: int = 1, image: str = "toy") -> torch.Tensor:
    """The raw map of a method expression, flat, in float64."""
    return explainer(f, parse_call(expression), target, image).raw(x).map.double().flatten()


@pytest.mark.parametrize("method", NOISY)
def test_noise_does_not_change_the_gradient_of_a_linear_network(method: str) -> None:
    f, weight = linear(side=6)
    x = uniform(3, 6, 6, seed=2)
    own = int(f.logits(x[None]).argmax())
    got = explain(f, method, x, own)
    torch.testing.assert_close(got, weight[own], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["vargrad", "sgsq"])
def test_variance_and_mean_square_of_a_linear_network(method: str) -> None:
    f, weight = linear(side=6)
    want = weight[1] ** 2 if method == "sgsq" else torch.zeros_like(weight[1])
    torch.testing.assert_close(explain(f, method, uniform(3, 6, 6, seed=2), 1), want, rtol=1e-4, atol=1e-5)


def test_deeplift_from_zero_is_gradient_times_input_without_biases() -> None:
    """Of a bias-free ReLU network, whose activations at zero are zero."""
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 6, 3, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 4 * 4, 4, bias=False),
    )  # fmt: skip
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(0.3 * draw(*p.shape, seed=i))
    f = attrsens.Classifier(net.eval(), [0.0] * 3, [1.0] * 3, crop=8, device="cpu")
    x = uniform(3, 8, 8, seed=3)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net(leaf[None])[0, 1], leaf)
    torch.testing.assert_close(explain(f, "deeplift", x, 1, baseline="black"), slope * x, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(explain(f, "lrp", x, 1, eps=1e-9), slope * x, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("k", [5, 50, 300])
def test_set_explanations_move_no_more_than_their_maps_allow(k: int) -> None:
    """HSE, proposition B.1: |S(x) - S(y)|_1 <= 2 |map(x) - map(y)|_1 / (eta k), eta the gap below the k-th entry."""
    f = small()
    x = uniform(3, 16, 16, seed=5)

    here, chosen = of(f, "grad", x), of(f, f"grad+topk:k={k}", x)
    ranked = here.sort(descending=True).values
    eta = float(ranked[k - 1] - ranked[k])
    moved = []
    for seed in range(6):
        y = x + 0.05 * (uniform(3, 16, 16, seed=100 + seed) - 0.5)
        change = float((of(f, f"grad+topk:k={k}", y) - chosen).abs().sum())
        assert change <= 2 * float((of(f, "grad", y) - here).abs().sum()) / (eta * k) + 1e-6
        moved.append(change)
    assert max(moved) > 0, "the sets did change"


@pytest.mark.parametrize("output", ["logit", "prob"])
def test_one_step_of_adversarial_gradient_integration(output: str) -> None:
    """A = - sum over t of df_c/dx * (clip(x + eps sign df_t/dx, 0, 1) - x)."""
    f, x, eps = small(), uniform(3, 16, 16, seed=4), 0.01
    own = int(f.logits(x[None]).argmax())
    leaf = x.clone().requires_grad_()
    logits = f.network((leaf[None] - 0.45) / 0.25)[0]
    scores = logits if output == "logit" else logits.softmax(0)
    (down,) = torch.autograd.grad(scores[own], leaf, retain_graph=True)
    want = torch.zeros_like(x)
    for t in classes(f.class_count, own, 4, "path"):
        (up,) = torch.autograd.grad(scores[t], leaf, retain_graph=True)
        want -= down * ((x + eps * up.sign()).clamp(0, 1) - x)
    spec = attrsens.METHODS["agi"]
    own_map = attrsens.Explainer(
        f, spec, own, spec.complete({"k": 4, "steps": 1, "eps": eps, "output": output}), image="toy"
    ).raw(x)
    torch.testing.assert_close(own_map.map, want, rtol=1e-3, atol=1e-6 * float(want.abs().max()))
    assert float(want.abs().max()) > 0


def test_attacks_towards_the_winning_class_take_no_step() -> None:
    """Where the explained class does not win, one of the others has been reached before the first step."""
    x = uniform(3, 16, 16, seed=4)
    weight = draw(2, 768)
    f = attrsens.Classifier(Linear(weight, torch.tensor([0.0, 500.0])), [0.0] * 3, [1.0] * 3, crop=16, device="cpu")
    spec = attrsens.METHODS["agi"]
    raw = attrsens.Explainer(f, spec, 0, spec.complete({"k": 1, "output": "logit"}), "toy").raw(x)
    assert not bool(raw.map.any())
    assert (raw.notes["success"], raw.notes["distance"]) == (1.0, 0.0)
    raw = attrsens.Explainer(f, spec, 1, spec.complete({"k": 1, "output": "logit"}), "toy").raw(x)
    assert bool(raw.map.any()), "away from the winner it does"


class Steps(nn.Module):
    """HSE's toy: k = floor |a - b|; f = max(a, b) - k/2 for an even k, min(a, b) + (k + 1)/2 for an odd one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.flatten(1).unbind(1)
        k = (a - b).abs().floor()
        f = torch.where(k % 2 == 0, torch.maximum(a, b) - k / 2, torch.minimum(a, b) + (k + 1) / 2)
        return torch.stack([f, torch.zeros_like(f)], 1)


def test_a_gradient_that_flips_is_smoothed_to_the_share_of_both() -> None:
    """HSE's figure: steps of f never exceed a half, its gradient is (1, 0) or (0, 1), and SmoothGrad's tends to both
    halves as its radius grows."""
    f = attrsens.Classifier(Steps(), [0.0], [1.0], crop=2, device="cpu")
    for b, value, slope in ((11.9, 16.0, [1.0, 0.0]), (12.1, 16.1, [0.0, 1.0]), (15.9, 18.0, [1.0, 0.0])):
        x = torch.tensor([20.0, b]).reshape(1, 1, 2)
        assert float(f.score(x[None], 0)) == pytest.approx(value, abs=1e-5)
        assert of(f, "grad", x, 0).tolist() == slope
        close = of(f, "grad+smooth:n=50,radius=0.02", x, 0)
        assert close.tolist() == slope
        wide = of(f, "grad+smooth:n=2000,radius=5", x, 0)
        assert wide.tolist() == pytest.approx([0.5, 0.5], abs=0.05)
        assert float(wide.sum()) == pytest.approx(1)


# -- HSE's calculus of sensitivities, for distances of maps that are not normalised ------------------------------------


def ball(x: torch.Tensor, radius: float, count: int = 6) -> list[torch.Tensor]:
    """Images around one, whose extreme pixels stay what they are, so that noise relative to the range does too."""
    inside = (x > x.min()) & (x < x.max())
    shifts = [radius * (2 * uniform(*x.shape, seed=70 + i) - 1) * inside for i in range(count)]
    moved = [x + s for s in shifts]
    return [torch.where(inside, m.clamp(x.min(), x.max()), x) for m in moved]


def size(x: torch.Tensor) -> float:
    """d(x (.) v) <= max |x| d(v) for every Minkowski d: sharper than the d(x) d(v) of the propositions."""
    return float(x.abs().max())


@pytest.mark.parametrize("p", [1, 2, float("inf")])
def test_the_input_times_a_map_moves_no_more_than_its_factors(p: float) -> None:
    """Proposition 2.3, image by image: d(x Phi(x) - y Phi(y)) <= (|x| + |u|) d(Phi(x) - Phi(y)) + |u| d(Phi(x))."""
    f, x = small(), uniform(3, 16, 16, seed=6)
    here, product = of(f, "grad", x), of(f, "gi", x)
    for y in ball(x, 0.1):
        moves = float((of(f, "grad", y) - here).norm(p))
        moved = float((of(f, "gi", y) - product).norm(p))
        assert 0 < moved <= (size(x) + size(y - x)) * moves + size(y - x) * float(here.norm(p))


@pytest.mark.parametrize(
    ("smoothed", "purpose", "law", "scale"),
    [
        ("sg:n=8,spread=0.2", "noise", "normal", 0.2),
        ("ug:n=8,spread=0.2", "uniform noise", "uniform", 0.2),
        ("grad+smooth:n=8,radius=0.2", "smooth", "uniform", 0.2),
    ],
)
@pytest.mark.parametrize("p", [1, 2])
def test_a_mean_of_maps_moves_no_more_than_the_maps_do_on_average(
    smoothed: str, purpose: str, law: str, scale: float, p: int
) -> None:
    """Proposition 2.4 and corollary 2.2; with the draws of one image for all points around it, and not otherwise."""
    f, x = small(), uniform(3, 16, 16, seed=6)
    draws = getattr(Stream(0, "toy", purpose), law)(range(8), (3, 16, 16))
    noise = torch.from_numpy(draws if law == "normal" else 2 * draws - 1)
    noise = noise * scale * (1.0 if "smooth" in smoothed else float(x.max() - x.min()))
    here, single = of(f, smoothed, x), [of(f, "grad", x + e) for e in noise]
    for y in ball(x, 0.01):
        each = [float((of(f, "grad", y + e) - s).norm(p)) for e, s in zip(noise, single, strict=True)]
        moved = float((of(f, smoothed, y) - here).norm(p))
        assert 0 < moved <= sum(each) / 8 * (1 + 1e-4)
    assert torch.equal(of(f, smoothed, x), here)
    assert float((of(f, smoothed, x, image="another") - here).norm(p)) > 0


@pytest.mark.parametrize("p", [1, 2, float("inf")])
def test_integrated_gradients_move_no_more_than_the_gradients_on_their_paths(p: float) -> None:
    """Corollary A.1, by 2.3 and 2.4 (as printed it lacks the sign between its terms): Phi of 2.3 is the mean gradient
    on the path from black."""
    f, x, steps = small(), uniform(3, 16, 16, seed=6), 7
    points = [(i + 0.5) / steps for i in range(steps)]
    path = [of(f, "grad", t * x) for t in points]
    mean, expression = sum(path) / steps, f"ig:steps={steps},rule=middle,output=logit"
    for y in ball(x, 0.1):
        moves = sum(float((of(f, "grad", t * y) - g).norm(p)) for t, g in zip(points, path, strict=True)) / steps
        moved = float((of(f, expression, y) - of(f, expression, x)).norm(p))
        assert 0 < moved <= (size(x) + size(y - x)) * moves + size(y - x) * float(mean.norm(p))


def layers(*weights: torch.Tensor) -> attrsens.Classifier:
    """f(x) = relu(W_l ... relu(W_1 x)), without biases, on images of one row."""
    net = nn.Sequential(nn.Flatten())
    for w in weights:
        net.extend([nn.Linear(w.shape[1], w.shape[0], bias=False), nn.ReLU()])
        with torch.no_grad():
            net[-2].weight.copy_(w)
    return attrsens.Classifier(net, [0.0], [1.0], crop=weights[0].shape[1], device="cpu")


def lipschitz(weights: list[torch.Tensor], beta: float) -> float:
    """(beta / 4) sum_k prod_{i <= k} |W_i|^2 prod_{i > k} |W_i|, norms spectral (science C-2)."""
    norms = [float(torch.linalg.matrix_norm(w, 2)) for w in weights]
    total = 0.0
    for k in range(1, len(norms) + 1):
        low, high = torch.tensor(norms[:k]).prod() ** 2, torch.tensor(norms[k:]).prod()
        total += float(low * high)
    return beta / 4 * total


@pytest.mark.parametrize("beta", [0.8, 3.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradients_of_softplus_networks_have_the_corrected_lipschitz_constant(beta: float, seed: int) -> None:
    """Corollary 2.1 as science C-2 mends it, against gradients at near and far pairs."""
    weights = [draw(*s, seed=10 * seed + i) for i, s in enumerate([(6, 9), (5, 6), (2, 5)])]
    f, bound = layers(*weights), lipschitz(weights, beta)
    steepest = 0.0
    for i in range(6):
        x = draw(1, 1, 9, seed=100 + i)
        for size in (1e-2, 1.0):
            y = x + size * draw(1, 1, 9, seed=200 + i)
            gradients = [of(f, f"grad+softplus:beta={beta}", at) for at in (x, y)]
            steepest = max(steepest, float((gradients[0] - gradients[1]).norm() / (x - y).norm()))
    assert 0 < steepest <= bound


def test_the_printed_lipschitz_constant_is_exceeded() -> None:
    """Two layers of weight 1: prod |W_i|^2 / 4 would be 1/16; the bound that holds is 1/2."""
    one = torch.ones(1, 1)
    f = layers(one, torch.ones(2, 1))
    at = torch.linspace(-3, 3, 25)
    slopes = torch.cat([of(f, "grad+softplus:beta=1", t.reshape(1, 1, 1)) for t in at])
    steepest = float((slopes.diff() / at.diff()).max())
    assert 1 / 16 < steepest <= lipschitz([one, one], 1.0)
