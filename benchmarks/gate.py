"""How often `--baseline` cries wolf, and how small a change it finds: `python benchmarks/gate.py MODEL IMAGES.npz`.

Unchanged repeats: random subsets of the images, each explained again with one thing that should not matter changed
(seed, threads, batch, folding, or all of them). Planted changes: Gaussian noise on the weights of one random
convolution, as a share of their norm. Prints a table a number of images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attrsens
from attrsens.engine import baseline
from attrsens.engine.floor import noise_floor, threads
from attrsens.engine.prepare import prepare
from attrsens.engine.report import Report
from attrsens.engine.verbs import execute
from attrsens.models.failures import copied

METHODS = ("grad", "sg:n=10")
REPEATS = ("seed", "threads", "batch", "folding", "all of them")


def explain(f: attrsens.Classifier, images: list[Any], methods: list[str], cache: Path | None) -> tuple[Any, Report]:
    prepared = prepare(images, model=f, method=methods, cache=cache is not None, cache_dir=cache)
    return prepared, execute(prepared)


def classifier(plain: attrsens.Classifier, fold: bool = True, batch: Any = "auto", noise: float = 0.0, seed: int = 0):
    """A fresh copy of the network; with noise, that of one convolution's weights, as a share of their norm."""
    net, layer = copied(plain.network, plain.name), ""
    if noise:
        rng = np.random.default_rng(seed)
        convs = {name: m for name, m in net.named_modules() if isinstance(m, torch.nn.Conv2d)}
        layer = list(convs)[int(rng.integers(len(convs)))]
        weight = convs[layer].weight
        drawn = torch.from_numpy(rng.normal(size=tuple(weight.shape))).to(weight)
        with torch.no_grad():
            weight.add_(drawn * noise * weight.norm() / drawn.norm())
    p = plain.preprocess
    more = {"resize": p.resize, "crop": p.crop, "interp": p.interp, "name": plain.name, "device": "cpu"}
    return attrsens.Classifier(net, p.mean, p.std, fold=fold, batch=batch, copy_module=False, **more)


def verdicts(f: Any, images: list[Any], methods: list[str], old: baseline.Baseline) -> tuple[Any, Report]:
    prepared, report = explain(f, images, methods, None)
    floor = noise_floor(prepared.request, report.records)
    return baseline.check(report, old, floor=floor), report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("--arch")
    parser.add_argument("--pool", type=int, default=60)
    parser.add_argument("--sizes", type=int, nargs="+", default=[3, 20])
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--planted", type=int, default=20)
    a = parser.parse_args()
    plain = attrsens.load(a.model, arch=a.arch, device="cpu", fold=False, batch=16)
    pool = list(np.load(a.images)["images"][: a.pool])
    usual = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        for size in a.sizes:
            rng = np.random.default_rng(size)
            kept = Path(folder) / "baseline.json"

            def drawn(rng=rng, kept=kept, size=size) -> tuple[list[Any], baseline.Baseline]:
                images = [pool[i] for i in rng.choice(len(pool), size, replace=False)]
                kept.write_bytes(baseline.slim(explain(classifier(plain), images, list(METHODS), Path(folder))[1]))
                return images, baseline.read(kept)

            counts: dict[str, Counter[str]] = {}
            for k in range(a.repeats):
                kind = REPEATS[k % len(REPEATS)]
                everything = kind == "all of them"
                images, old = drawn()
                seed = 1 + k if kind == "seed" or everything else 0
                f = classifier(
                    plain,
                    kind != "folding" and not everything,
                    1 + 2 * (k % 3) if kind == "batch" or everything else "auto",
                )
                with threads(1 + k % 4 if kind == "threads" or everything else usual):
                    found, _ = verdicts(f, images, ["grad", f"sg:n=10,seed={seed}"], old)
                counts.setdefault(f"{kind}: explanations", Counter())[found.explanations] += 1
                counts.setdefault(f"{kind}: predictions", Counter())[found.predictions] += 1
            for share in (0.01, 0.02, 0.05):
                for k in range(a.planted):
                    images, old = drawn()
                    found, report = verdicts(classifier(plain, noise=share, seed=k), images, list(METHODS), old)
                    counts.setdefault(f"{share:.0%} planted: predictions", Counter())[found.predictions] += 1
                    for row in report.comparisons:
                        if row.quantity == "baseline.l2":
                            counts.setdefault(f"{share:.0%} planted: {row.b['method']}", Counter())[
                                row.verdict or ""
                            ] += 1
            print(f"\n{size} images of {plain.name}, {usual} threads\n\n| what | moved | cannot tell | equivalent |")
            print("|---|--:|--:|--:|")
            for what, row in counts.items():
                print(f"| {what} | {row['moved']} | {row['cannot tell']} | {row['equivalent']} |", flush=True)


if __name__ == "__main__":
    main()
