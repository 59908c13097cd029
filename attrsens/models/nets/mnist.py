"""Small networks for MNIST, 28 x 28 pixels of one channel."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from attrsens.images import Preprocess
from attrsens.models.nets import net

PLAIN = Preprocess(28, 28, mean=(0.0,), std=(1.0,))
MNIST_STATISTICS = Preprocess(28, 28, mean=(0.1307,), std=(0.3081,))

# names in TensorFlow archives of Madry's challenge, and ours
TENSORFLOW = {
    "conv1": "conv1.weight",
    "biasc1": "conv1.bias",
    "conv2": "conv2.weight",
    "biasc2": "conv2.bias",
    "fc1": "fc1.weight",
    "biasf1": "fc1.bias",
    "fc2": "fc2.weight",
    "biasf2": "fc2.bias",
}


def from_tensorflow(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Convolutions from (H, W, in, out), matrices from (in, out), flattening from (H, W, C) to (C, H, W)."""
    if not set(TENSORFLOW) <= set(state) or set(TENSORFLOW.values()) & set(state):
        return OrderedDict(state)
    out = OrderedDict((TENSORFLOW.get(name, name), tensor) for name, tensor in state.items())
    for name in ("conv1.weight", "conv2.weight"):
        if out[name].dim() == 4:
            out[name] = out[name].permute(3, 2, 0, 1).contiguous()
    fc1 = out["fc1.weight"]
    if fc1.dim() == 2 and len(fc1) == 7 * 7 * 64:
        images = fc1.reshape(7, 7, 64, fc1.shape[1])
        out["fc1.weight"] = images.permute(3, 2, 0, 1).flatten(1).contiguous()
    if out["fc2.weight"].dim() == 2:
        out["fc2.weight"] = out["fc2.weight"].T.contiguous()
    return out


class MnistCnn(nn.Module):
    """Two 5 x 5 convolutions of 32 and 64 channels, each halved by max-pooling, then 1,024 units."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc1 = nn.Linear(7 * 7 * 64, 1024)
        self.fc2 = nn.Linear(1024, classes)
        self.pool, self.relu = nn.MaxPool2d(2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        logits: Tensor = self.fc2(self.relu(self.fc1(x.flatten(1))))
        return logits


@net("mnist-cnn", preprocess=PLAIN, labels="mnist", classes=10, adapt=from_tensorflow)
def mnist_cnn(name: str, classes: int) -> nn.Module:
    """MNIST CNN of Madry et al. 2018 (also TensorFlow's npz archives)."""
    return MnistCnn(classes)


@net("mnist-lenet", preprocess=PLAIN, labels="mnist", classes=10)
def lenet(name: str, classes: int) -> nn.Module:
    """LeNet for MNIST, as Quantus tests with."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)),
    )


@net("mnist-conv-small", preprocess=MNIST_STATISTICS, labels="mnist", classes=10)
def conv_small(name: str, classes: int) -> nn.Module:
    """Two strided 4 x 4 convolutions without padding (ConvSmall of ERAN and alpha-beta-CROWN)."""
    return _strided((16, 32), 4, 0, 800, 100, classes)


@net("mnist-madry-tiny", preprocess=PLAIN, labels="mnist", classes=10)
def madry_tiny(name: str, classes: int) -> nn.Module:
    """Two strided 5 x 5 convolutions of 4 and 8 channels (alpha-beta-CROWN)."""
    return _strided((4, 8), 5, 2, 392, 128, classes)


@net("mnist-cnn-a", preprocess=PLAIN, labels="mnist", classes=10)
def cnn_a(name: str, classes: int) -> nn.Module:
    """Two strided 4 x 4 convolutions with padding (CNN-A; Kolter and Wong's provable network)."""
    return _strided((16, 32), 4, 1, 1568, 100, classes)


def _strided(widths: tuple[int, int], kernel: int, padding: int, flat: int, hidden: int, classes: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, widths[0], kernel, 2, padding), nn.ReLU()),
        *(nn.Conv2d(widths[0], widths[1], kernel, 2, padding), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, classes)),
    )
