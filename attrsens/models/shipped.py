"""The networks that come with attrsens: made by `attrsens train`, each with its model card in its header."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"

# one architecture and one data set, CIFAR-10; only the recipe differs
SUMMARIES = {
    "cifar10-std": "CIFAR-10, 32 px, standard training: the regular twin of the three below",
    "cifar10-linf": "CIFAR-10, 32 px, adversarially trained, L-infinity 8/255 (N-FGSM)",
    "cifar10-l2": "CIFAR-10, 32 px, adversarially trained, L2 0.5 (one step from a random start)",
    "cifar10-cure": "CIFAR-10, 32 px, cifar10-std fine-tuned for low curvature (CURE)",
}


def shipped() -> dict[str, tuple[str, Path]]:
    """name -> (summary, file)."""
    files = {name: WEIGHTS / f"{name}.safetensors" for name in SUMMARIES}
    return {name: (SUMMARIES[name], path) for name, path in files.items() if path.is_file()}
