"""Folding and memory order change nothing that counts, on any kind of network; where they would, they are not done."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import zoo
from torch import nn
from toys import SmallNet, uniform

import attrsens
from attrsens.models.form import EXACT, Folding, fold_batchnorm


@pytest.mark.parametrize("name", zoo.ZOO)
def test_the_default_form_keeps_logits_and_gradients(name: str) -> None:
    fast, plain = (zoo.classifier(name, fold=fold) for fold in (True, False))
    x = zoo.images(name)
    a, b = fast.logits(x), plain.logits(x)
    span = float(b.max() - b.min())
    assert span > 1e-3, "a network that tells images apart"
    assert float((a - b).abs().max()) <= EXACT * span
    targets = b.argmax(1).tolist()
    for image, target in zip(x, targets, strict=True):
        g, h = (f.gradient(image, target).flatten() for f in (fast, plain))
        assert float(h.abs().max()) > 0
        assert float(F.cosine_similarity(g, h, 0)) >= 0.999
    _, _, folded, left = zoo.ZOO[name]
    assert fast.form is not None
    assert (fast.form.folding.folded, len(fast.form.folding.left)) == (folded, left)
    assert (fast.form.layout_name, fast.form.note) == ("channels_last", "")
    assert plain.form is not None
    assert plain.form.layout_name == "plain"
    assert sum(isinstance(m, nn.BatchNorm2d) for m in plain.network.modules()) == folded + left
    assert sum(isinstance(m, nn.BatchNorm2d) for m in fast.network.modules()) == left


def test_densenet_says_why_some_norms_stay() -> None:
    f = zoo.classifier("densenet121")
    f.logits(zoo.images("densenet121", 1))
    assert f.form is not None
    assert set(f.form.folding.left.values()) == {"follows no convolution"}
    assert "features.denseblock1.denselayer1.norm1" in f.form.folding.left


class Views(SmallNet):
    """Flattens by `view`, which channels-last tensors of more than one pixel do not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activate(self.bn2(self.conv2(self.activate(self.bn1(self.conv1(x))))))
        return self.fc(x.view(len(x), -1).reshape(len(x), 8, -1).mean(2))


def wrapped(net: nn.Module, **options: object) -> attrsens.Classifier:
    return attrsens.Classifier(net, [0.45] * 3, [0.25] * 3, crop=16, device="cpu", **options)


def test_a_network_that_needs_the_plain_order_keeps_it_and_says_so() -> None:
    fast, plain = wrapped(Views("reused")), wrapped(Views("reused"), fold=False)
    x = uniform(3, 3, 16, 16)
    torch.testing.assert_close(fast.logits(x), plain.logits(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fast.gradient(x[0], 1), plain.gradient(x[0], 1), rtol=1e-4, atol=1e-6)
    assert fast.form is not None
    assert fast.form.layout_name == "plain"
    assert fast.form.note.startswith("channels_last fails (view size is not compatible")
    assert fast.form.folding.folded == 2
    assert all(p.is_contiguous() for p in fast.network.parameters())


class Strided(SmallNet):
    """Reads memory in the order in which it lies: another function of channels-last tensors."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activate(self.conv1(x))
        flat = torch.as_strided(x, (len(x), x[0].numel()), (x.stride(0), 1))
        return self.fc(flat.reshape(len(x), 8, -1).mean(2))


def test_an_order_that_would_change_the_logits_is_taken_back() -> None:
    fast, plain = wrapped(Strided("reused")), wrapped(Strided("reused"), fold=False)
    x = uniform(3, 3, 16, 16)
    torch.testing.assert_close(fast.logits(x), plain.logits(x), rtol=1e-5, atol=1e-6)
    assert fast.form is not None
    assert "channels_last changes the logits by" in fast.form.note


def reasons(net: nn.Module) -> Folding:
    return fold_batchnorm(net.eval(), uniform(1, 3, 16, 16))


def test_every_norm_that_stays_has_its_reason() -> None:
    class Twice(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raw = self.conv1(x)
            return self.fc((self.bn1(raw) + raw).mean((2, 3)))

    found = reasons(Twice("reused"))
    assert found.folded == 0
    assert found.left["bn1"].startswith("folding changes the logits by ")
    assert found.left["bn2"] == "not called"

    class Shared(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(self.bn1(self.conv1(x)))
            return self.fc(self.relu(self.bn1(self.conv2(x))).mean((2, 3)))

    assert reasons(Shared("reused")).left["bn1"] == "it or its convolution runs more than once"
    own = SmallNet("reused")
    own.bn1.track_running_stats, own.bn1.running_mean, own.bn1.running_var = False, None, None
    found = reasons(own)
    assert (found.folded, found.left) == (1, {"bn1": "normalises by the batch's own statistics"})
    made = SmallNet("reused")
    nn.utils.parametrizations.weight_norm(made.conv1)
    found = reasons(made)
    assert (found.folded, found.left) == (1, {"bn1": "its convolution makes its weight anew"})


def test_a_wrong_fold_of_small_logits_is_taken_back_too() -> None:
    class Twice(SmallNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raw = self.conv1(x)
            return 1e-4 * self.fc((self.bn1(raw) + raw).mean((2, 3)))

    assert reasons(Twice("reused")).folded == 0


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("space", ["pixel", "normalized"])
def test_clamping_cuts_pixels_and_their_gradients(space: str, fold: bool) -> None:
    f, free = (wrapped(SmallNet("reused"), clamp=clamp, fold=fold).view(space=space) for clamp in (True, False))
    x = uniform(3, 16, 16) * 2 - 0.5
    outside = (x < 0) | (x > 1)
    torch.testing.assert_close(f.score(f.encode(x)[None], 1), free.score(f.encode(x.clamp(0, 1))[None], 1))
    gradient = f.gradient(f.encode(x), 1)
    assert bool((gradient[outside] == 0).all())
    torch.testing.assert_close(gradient[~outside], free.gradient(f.encode(x.clamp(0, 1)), 1)[~outside])
    assert bool((free.gradient(f.encode(x), 1)[outside] != 0).any())
