"""A step of an attack on a gradient map: attrsens's exact Hessian product against plain double backward, and the floor.

    python benchmarks/attack.py           # lite0, batches of 1 and 8; the table goes into benchmarks/README.md
    python benchmarks/attack.py --quick   # one round at batch 1, to see that it runs; writes nothing

The sides take turns in one process, and ratios are taken within a round (see `_timing.py`). All of them differentiate
the same loss on the same gradient map of the network with softplus for its ReLU6s:

- attrsens: `models.second_order`, as the attack calls it.
- double backward: torch's autograd with `create_graph` and torch's own softplus, in the plain layout, which is faster.
- floor: the two passes forward and back that the maths needs, at the price of the network as it is, with its ReLU6s.
- whole step: also the perturbation, the prediction's term on the network as it is, and Adam.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from _options import numbers
from _timing import (
    command,
    interleave,
    machine,
    measure,
    ratio,
    say,
    seconds,
    shared_options,
    show,
    table,
    write_section,
)
from torch import Tensor

import attrsens
from attrsens.attacks._case import Case
from attrsens.attacks.untargeted import untargeted
from attrsens.engine.cell import parse_call
from attrsens.engine.compute import explainer
from attrsens.images import decode
from attrsens.models.second_order import twice
from attrsens.models.surgery import softplus_relu
from attrsens.samples import samples

BETA = 100.0
STEPS = 4  # of the whole attack, whose time is divided by what it evaluates
HEAD = [
    "batch",
    "what",
    "double backward / attrsens",
    "attrsens / floor",
    "attrsens, ms an image",
    "double backward, ms",
]
HEAD += ["floor, ms", "whole step, ms", "rounds kept / discarded"]


def sides(count: int) -> dict[str, Callable[[], object]]:
    """What takes turns, at a batch of `count` pictures."""
    f = attrsens.load("lite0", device="cpu")
    pictures = [decode(sample.path) for sample in list(samples().values())]
    colour = [torch.from_numpy(f.preprocess.apply(p)) for p in pictures]
    x = torch.stack([colour[i % len(colour)] for i in range(count)])
    logits = f.logits(x)
    top = logits.argmax(1)
    f.settle(x[0])
    u, plain = f.laid_out(x), f.normalised(x)
    weights = torch.from_numpy(f.stream(0, "benchmark").normal([0], tuple(u.shape))[0])

    def loss(z: Tensor) -> Tensor:
        return z.gather(1, top[:, None])[:, 0]

    def ours() -> Tensor:
        v = u.detach().requires_grad_()
        with softplus_relu(BETA):
            _, _, gradients = twice(f.network, v, loss, f.memo)
        (found,) = torch.autograd.grad((gradients * weights).sum(), v)
        return found

    def double() -> Tensor:
        v = plain.detach().requires_grad_()
        with softplus_relu(BETA):
            z = f.network(v.clone())
        (gradients,) = torch.autograd.grad(loss(z).sum(), v, create_graph=True)
        (found,) = torch.autograd.grad((gradients * weights).sum(), v)
        return found

    def floor() -> None:
        for _ in range(2):
            v = u.detach().requires_grad_()
            torch.autograd.grad(loss(f.network(v.clone())).sum(), v)

    bound = [explainer(f, parse_call("grad"), int(t), str(i)) for i, t in enumerate(top)]
    cases = [Case(e, p, e.target, z, e.raw(p).map) for e, p, z in zip(bound, x, logits, strict=True)]
    apart = float((ours() - double()).norm() / double().norm())
    say(f"batch {count}: both sides agree to {apart:.1e}")
    if apart > 1e-3:
        raise SystemExit("the sides compute different things")
    return {"ours": ours, "double": double, "floor": floor, "step": partial(untargeted, cases, steps=STEPS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=numbers, default=[1, 8], help="pictures in a batch")
    shared_options(parser, rounds=5)
    parser.add_argument("--quick", action="store_true", help="one round at batch 1, nothing discarded, README.md left")
    a = parser.parse_args()
    if a.quick:
        a.batch, a.rounds, a.foreign, a.no_readme = [1], 1, 1.0, True
    rows = []
    for count in a.batch:
        parts = {name: partial(measure, run) for name, run in sides(count).items()}
        for part in parts.values():
            part()
        kept, discarded = interleave(parts, a.rounds, a.attempts or 4 * a.rounds, a.foreign)
        each = {name: (seconds(kept, name) or 0) * 1000 / count for name in parts}
        cells = [str(count), "grad, lite0", show(ratio(kept, "double", "ours")), show(ratio(kept, "ours", "floor"))]
        cells += [show(each[name]) for name in ("ours", "double", "floor")] + [show(each["step"] / (STEPS + 1))]
        rows.append([*cells, f"{len(kept)} / {discarded}"])
        say(" | ".join(rows[-1]))
    facts = machine(["attrsens", "torch"])
    text = "\n\n".join(
        [
            f"```\n{command('attack.py')}\n```",
            "; ".join(f"{k}: {v}" for k, v in facts.items()) + ".",
            table(HEAD, rows),
        ]
    )
    print(text)
    if not a.no_readme:
        write_section("attack", text)


if __name__ == "__main__":
    main()
