"""The classifier: batching, counting, folding, conventions, memory, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import nn
from toys import SmallNet, draw, explain, linear, mean_gradient, small, uniform

import attrsens
from attrsens.errors import InputError
from attrsens.models.batches import Passes, Rows, Stack, prefix_sums
from attrsens.models.devices import pick_device
from attrsens.models.form import fold_batchnorm


def test_any_iterable_is_batched_and_counted() -> None:
    images = uniform(11, 3, 16, 16)
    f = small(batch=4)
    want = f.logits(images)
    for given in (list(images), (i for i in images), Stack(11, lambda r: images[r.start : r.stop], images[0])):
        torch.testing.assert_close(f.logits(given), want, rtol=1e-6, atol=1e-6)
    assert f.passes.forward == 44
    view = f.view()
    _, scores = mean_gradient(view, images, 2)
    assert (view.passes.forward, view.passes.backward) == (11, 11)
    torch.testing.assert_close(scores, want[:, 2], rtol=1e-5, atol=1e-6)
    assert f.passes.backward == 0, "a view counts for itself"


def test_batches_are_no_larger_than_asked() -> None:
    seen: list[int] = []

    class Spy(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().forward(x)

    f = attrsens.Classifier(Spy("reused"), [0.0] * 3, [1.0] * 3, crop=16, device="cpu", fold=False, batch=5)
    f.logits(uniform(12, 3, 16, 16))
    mean_gradient(f, uniform(12, 3, 16, 16), 0)
    assert seen == [5, 5, 2, 5, 5, 2]


def test_auto_batches_on_a_cpu() -> None:
    assert small().sizes == (16, 8)


def test_a_stack_is_built_in_batches_and_never_whole() -> None:
    built: list[int] = []

    def build(indices: range) -> torch.Tensor:
        built.append(len(indices))
        return uniform(len(indices), 3, 16, 16)

    small().score(Stack(1000, build, uniform(3, 16, 16)), 0)
    assert max(built) == 16
    assert sum(built) == 1000


def test_several_classes_cost_one_pass_an_image() -> None:
    images, f = uniform(7, 3, 16, 16), small(batch=3)
    for output in ("logit", "prob"):
        view = f.view(output=output)
        parts = list(view.scores(images, [2, 0, 2]))
        assert [tuple(part.shape) for part in parts] == [(3, 3), (3, 3), (1, 3)]
        assert view.passes == Passes(7, 0)
        for k, target in enumerate([2, 0, 2]):
            assert torch.equal(torch.cat(parts)[:, k], f.view(output=output).score(images, target))
    dry = f.view(dry=True)
    assert torch.cat(list(dry.scores(images, [1, 2]))).shape == (7, 2)
    assert dry.passes == Passes(7, 0)


def test_sums_of_first_rows_come_as_soon_as_their_last_row() -> None:
    rows = torch.arange(40.0).reshape(10, 4)
    drawn: list[int] = []

    def parts() -> Iterator[torch.Tensor]:
        for part in torch.split(rows, 4):
            drawn.append(len(part))
            yield part

    sums = prefix_sums(parts(), [1, 4, 4, 5, 10])
    for count, seen in ((1, 4), (4, 4), (4, 4), (5, 8), (10, 10)):
        torch.testing.assert_close(next(sums), rows[:count].sum(0))
        assert sum(drawn) == seen
    assert list(sums) == []
    for counts in ([0, 2], [3, 2], [11]):
        with pytest.raises(ValueError, match="rows"):
            list(prefix_sums(torch.split(rows, 4), counts))
    drawn.clear()
    kept = Rows(parts())
    for count, seen in ((3, 4), (1, 4), (9, 10)):
        assert torch.equal(kept.first(count), rows[:count])
        assert sum(drawn) == seen


def test_running_out_of_memory_halves_the_batch_for_good() -> None:
    seen: list[int] = []

    class Hungry(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    images = uniform(10, 3, 16, 16)
    f = attrsens.Classifier(Hungry("reused"), [0.45] * 3, [0.25] * 3, crop=16, device="cpu", fold=False, batch=8)
    torch.testing.assert_close(f.logits(images), small(fold=False).logits(images), rtol=1e-5, atol=1e-6)
    assert f.passes.forward == 10
    seen.clear()
    gradient, scores = mean_gradient(f, images, 1)
    torch.testing.assert_close(gradient, mean_gradient(small(fold=False), images, 1)[0], rtol=1e-4, atol=1e-7)
    assert len(scores) == 10
    assert max(seen) <= 3, "what did not fit once is not tried again"


def test_one_image_too_many_is_one_line() -> None:
    class Full(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.empty(10**15)  # what the allocator of this system says, not what a test thinks it says

    f = attrsens.Classifier(Full("reused"), [0.0] * 3, [1.0] * 3, device="cpu", fold=False, name="full")
    with pytest.raises(attrsens.AttrsensError, match="full: one image does not fit into the memory of cpu"):
        f.logits(uniform(4, 3, 16, 16))


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("space", ["pixel", "normalized"])
def test_a_network_that_starts_in_place_changes_nothing_of_its_caller(space: str, fold: bool) -> None:
    class InPlace(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.sub_(0.3))

    class Plain(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x - 0.3)

    x = uniform(3, 16, 16)
    nets = [
        attrsens.Classifier(k("reused"), [0.1] * 3, [0.5] * 3, crop=16, device="cpu", fold=fold)
        for k in (InPlace, Plain)
    ]
    for method, parameters in (
        ("grad", {}),
        ("ig", {"steps": 4}),
        ("sp", {"patch_size": 4, "stride": 4}),
        ("sg", {"n": 3}),
    ):
        a, b = (explain(f, method, x, 1, space=space, **parameters) for f in nets)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    images = uniform(4, 3, 16, 16)
    given = images.clone()
    nets[0].view(space=space).logits(given)
    assert torch.equal(given, images)


def test_a_first_image_that_is_refused_does_not_stop_the_folding() -> None:
    f = small()
    with pytest.raises(InputError, match="fails on an image of shape"):
        f.logits(uniform(1, 1, 16, 16).expand(1, 1, 16, 16).repeat(1, 5, 1, 1)[:, :2])
    f.logits(uniform(1, 3, 16, 16))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in f._net.modules())


def test_parametrised_convolutions_are_left_unfolded() -> None:
    net = SmallNet("reused")
    nn.utils.parametrizations.weight_norm(net.conv1)
    f = attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, crop=16, device="cpu")
    plain = attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, crop=16, device="cpu", fold=False)
    x = uniform(2, 3, 16, 16)
    torch.testing.assert_close(f.logits(x), plain.logits(x), rtol=1e-5, atol=1e-6)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in f._net.modules()) == 1


@pytest.mark.parametrize("error", [AssertionError("wrong size"), KeyError("x"), AttributeError("y"), RuntimeError("z")])
def test_whatever_a_network_raises_is_one_line(error: Exception) -> None:
    class Raises(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error

    f = attrsens.Classifier(Raises("reused"), [0.0] * 3, [1.0] * 3, device="cpu", name="raises")
    with pytest.raises(InputError, match="model raises fails on an image of shape"):
        f.logits(uniform(1, 3, 16, 16))


def test_outputs_that_are_no_logits_are_refused() -> None:
    class Dense(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    f = attrsens.Classifier(Dense(), [0.0] * 3, [1.0] * 3, device="cpu", name="dense")
    with pytest.raises(attrsens.AttrsensError, match=r"dense returns \(2, 3, 4, 4\) for 2 images; logits are 2-D"):
        f.logits(uniform(2, 3, 4, 4))


def test_a_network_that_fails_on_an_image_is_a_failure_of_that_image() -> None:
    f, _ = linear(side=6)
    with pytest.raises(InputError, match=r"fails on an image of shape \(3, 5, 5\)"):
        f.logits(uniform(1, 3, 5, 5))


def test_logits_that_are_not_finite_are_refused() -> None:
    f, _ = linear(side=6)
    images = uniform(2, 3, 6, 6)
    images[1, 0, 0, 0] = float("nan")
    for run in (f.logits, lambda x: mean_gradient(f, x, 0)):
        with pytest.raises(InputError, match="logits that are not finite"):
            run(images)


def test_no_gradient_path_is_said() -> None:
    class Cut(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.detach())

    f = attrsens.Classifier(Cut("reused"), [0.0] * 3, [1.0] * 3, crop=16, device="cpu", name="cut")
    with pytest.raises(attrsens.AttrsensError, match="cut has no gradient path"):
        f.gradient(uniform(3, 16, 16), 0)


def test_classes_out_of_range_and_names_that_do_not_fit() -> None:
    f = small()
    with pytest.raises(attrsens.AttrsensError, match="class 5 is out of range: model smallnet has 5 classes"):
        f.score(uniform(1, 3, 16, 16), 5)
    with pytest.raises(attrsens.AttrsensError, match="5 outputs, but 2 class names"):
        small(classes=["a", "b"]).logits(uniform(1, 3, 16, 16))
    assert f.class_count == 5


def test_tuple_outputs_start_with_the_logits() -> None:
    class Pair(SmallNet):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return super().forward(x), x

    images = uniform(2, 3, 16, 16)
    f = attrsens.Classifier(Pair("reused"), [0.45] * 3, [0.25] * 3, crop=16, device="cpu")
    torch.testing.assert_close(f.logits(images), small().logits(images), rtol=1e-5, atol=1e-6)


def test_colours_and_encoding_follow_the_space() -> None:
    f = attrsens.Classifier(SmallNet("reused"), [0.4, 0.5, 0.6], [0.1, 0.2, 0.3], crop=16, device="cpu")
    x = uniform(3, 16, 16)
    normal = f.view(space="normalized")
    torch.testing.assert_close(normal.score(normal.encode(x)[None], 0), f.score(x[None], 0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(normal.colour("mean"), torch.zeros(3, 1, 1))
    torch.testing.assert_close(normal.colour("black").flatten(), torch.tensor([-4.0, -2.5, -2.0]))
    torch.testing.assert_close(f.colour("mean").flatten(), torch.tensor([0.4, 0.5, 0.6]))


def test_bf16_acts_on_forward_passes_only(chelsea) -> None:
    exact, rough = attrsens.load("lite0", device="cpu"), attrsens.load("lite0", device="cpu", precision="bf16")
    a, b = exact.logits(chelsea[None]), rough.logits(chelsea[None])
    assert 0 < float((a - b).abs().max()) < 1
    torch.testing.assert_close(explain(rough, "grad", chelsea, 282), explain(exact, "grad", chelsea, 282))


def randomise(net: nn.Module) -> nn.Module:
    """Running statistics and gains as a trained network has them."""
    with torch.no_grad():
        for i, m in enumerate(net.modules()):
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.copy_(draw(len(m.running_mean), seed=i) * 0.1)
                m.running_var.copy_(uniform(len(m.running_var), seed=i + 1) + 0.5)
                m.weight.copy_(uniform(len(m.weight), seed=i + 2) + 0.5)
    return net.eval()


@pytest.mark.parametrize(
    ("arch", "folded"), [("resnet18", 20), ("googlenet", 57), ("mobilenet_v3_small", 34), ("vgg11_bn", 8), ("vgg11", 0)]
)
def test_folding_keeps_the_logits(arch: str, folded: int) -> None:
    with torch.random.fork_rng(devices=[]):
        kwargs = {"aux_logits": False, "init_weights": True} if arch == "googlenet" else {}
        net = randomise(torchvision.models.get_model(arch, weights=None, **kwargs))
    images = draw(2, 3, 64, 64)
    with torch.no_grad():
        before = net(images)
        assert fold_batchnorm(net, images[:1]).folded == folded
        after = net(images)
    assert float((after - before).abs().max()) <= 1e-4 * max(1.0, float(before.max() - before.min()))
    left = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert left == 0


def test_folding_is_undone_where_the_convolution_is_used_twice() -> None:
    """The norm follows the convolution, but the raw output is used as well: folding would change it."""

    class Twice(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raw = self.conv1(x)
            return self.fc((self.bn1(raw) + raw).mean((2, 3)))

    net = Twice("reused").eval()
    images = uniform(2, 3, 16, 16)
    with torch.no_grad():
        before = net(images)
        assert fold_batchnorm(net, images).folded == 0
        assert torch.equal(net(images), before)
    assert isinstance(net.bn1, nn.BatchNorm2d)


def test_a_norm_that_is_shared_or_in_training_form_is_left_alone() -> None:
    class Shared(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(self.bn1(self.conv1(x)))
            return self.fc(self.relu(self.bn1(self.conv2(x))).mean((2, 3)))

    net = Shared("reused").eval()
    assert fold_batchnorm(net, uniform(1, 3, 16, 16)).folded == 0
    free = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(784, 2)
    )
    assert fold_batchnorm(free.eval(), uniform(1, 3, 16, 16)).folded == 0


def test_folding_of_the_default_model(lite0, plain_lite0, chelsea) -> None:
    images = torch.stack([chelsea, chelsea.flip(-1)])
    a, b = lite0.logits(images), plain_lite0.logits(images)
    assert float((a - b).abs().max()) <= 1e-4 * float(b.max() - b.min())
    x, y = explain(lite0, "grad", chelsea, 282).flatten(), explain(plain_lite0, "grad", chelsea, 282).flatten()
    assert float(torch.nn.functional.cosine_similarity(x, y, 0)) >= 0.999
    assert not any(isinstance(m, nn.BatchNorm2d) for m in lite0._net.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in plain_lite0._net.modules())


def test_ids_follow_weights_preprocessing_and_nothing_else() -> None:
    net = SmallNet("reused")
    base = attrsens.Classifier(net, [0.5] * 3, [0.2] * 3, device="cpu").id
    assert attrsens.Classifier(net, [0.5] * 3, [0.2] * 3, device="cpu", batch=3, fold=False).id == base
    assert attrsens.Classifier(net, [0.5] * 3, [0.3] * 3, device="cpu").id != base
    with torch.no_grad():
        net.fc.bias[0] += 1e-6
    assert attrsens.Classifier(net, [0.5] * 3, [0.2] * 3, device="cpu").id != base
    with torch.no_grad():
        net.fc.bias[0] -= 1e-6
    named = attrsens.Classifier(net, [0.5] * 3, [0.2] * 3, device="cpu", classes=list("abcde")).id
    assert named != base
    assert base.startswith("smallnet@")
    assert len(base) == len("smallnet@") + 12


def test_ids_follow_what_the_module_computes_besides_its_weights() -> None:
    class Scaled(nn.Module):
        def __init__(self, t: float) -> None:
            super().__init__()
            self.t, self.fc = t, nn.Linear(2, 2)
            self.register_buffer("hidden", torch.ones(1) * t, persistent=False)
            with torch.no_grad():
                self.fc.weight.fill_(1.0)
                self.fc.bias.fill_(0.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.flatten(1)[:, :2]) * self.t

    class Other(Scaled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).sin()

    def ident(net: nn.Module) -> str:
        return attrsens.Classifier(net, [0.0] * 3, [1.0] * 3, device="cpu", name="n").id

    assert ident(Scaled(1.0)) == ident(Scaled(1.0))
    buffered = Scaled(1.0)
    buffered.hidden.fill_(2.0)
    assert len({ident(Scaled(1.0)), ident(Scaled(5.0)), ident(Other(1.0)), ident(buffered)}) == 4


@pytest.mark.parametrize("options", [{"batch": 0}, {"batch": -3}, {"batch": "x"}, {"precision": "fp16"}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(attrsens.AttrsensError, match="must be"):
        small(**options)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda-0"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(attrsens.AttrsensError, match="unknown device"):
        pick_device(name)


def test_devices_that_are_not_there() -> None:
    with pytest.raises(attrsens.AttrsensError, match="CUDA devices; use --device cpu"):
        pick_device("cuda:99")
