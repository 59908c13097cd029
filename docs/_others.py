"""What Captum and Quantus say of the fixtures of docs/metrics.py. Both draw what attrsens draws, where they draw."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from _scenes import Array, Other, Said, Scene
from scipy.integrate import trapezoid
from torch import Tensor


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, nothing printed or logged; torch's generator as it was, which Quantus seeds; and np.trapz, which
    Quantus needs and NumPy 2.4 no longer has."""
    level = logging.root.manager.disable
    trapezoids = mock.patch("numpy.trapz", trapezoid, create=True)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), trapezoids, redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


def _gradient(net: torch.nn.Module, x: Tensor, target: int) -> Tensor:
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(x)[:, target].sum(), x)
    return slope


# -- Captum ----------------------------------------------------------------------------------------------------


def captum_sensitivity(scene: Scene, moves: Array) -> float:
    with quiet():
        from captum.metrics import sensitivity_max

        found = sensitivity_max(
            lambda inputs: tuple(_gradient(scene.net, x, scene.target) for x in _parts(inputs)),
            scene.pixels[None],
            perturb_func=lambda inputs: inputs + torch.from_numpy(moves).float()[:, None],
            n_perturb_samples=len(moves),
        )
    return float(found)


def _parts(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def captum_infidelity(scene: Scene, off: Array, weights: Array, normalize: bool) -> float:
    """Of perturbations `off`, multiplied by the map as `weights`."""
    with quiet():
        from captum.metrics import infidelity

        def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
            return torch.from_numpy(weights).float()[:, None], inputs - torch.from_numpy(off).float()[:, None]

        found = infidelity(
            scene.net,
            perturb,
            scene.pixels[None],
            torch.from_numpy(scene.phi()).float()[None, None],
            target=scene.target,
            n_perturb_samples=len(off),
            normalize=normalize,
        )
    return float(found)


# -- Quantus ---------------------------------------------------------------------------------------------------


def quantus(scene: Scene, name: str, moves: Array | None = None, **options: Any) -> Said:
    """A metric of Quantus, or "refused" where it takes no such map. Maps are neither normalised nor made
    absolute.

    Args:
        moves: what it adds to the image in each of its rounds.
        options: of the metric.
    """
    with quiet():
        import quantus as library

        if moves is not None:
            rounds = iter(moves)
            options |= {"nr_samples": len(moves), "perturb_func": lambda arr, indices, **_: arr + next(rounds).ravel()}
        options = {"abs": False, "normalise": False, "disable_warnings": True} | options
        metric = getattr(library, name)(**options)
        region = None if scene.region is None else scene.region[None, None]
        try:
            found = metric(
                model=scene.net.eval(),
                x_batch=scene.image[None, None].astype(np.float32),
                y_batch=np.array([scene.target]),
                a_batch=scene.phi()[None, None].astype(np.float32),
                s_batch=region,
                channel_first=True,
                explain_func=_explained(scene),
                explain_func_kwargs={},
                model_predict_kwargs={},
                softmax=False,
                device="cpu",
            )
        except AssertionError:
            return "refused"
    value = next(iter(found.values())) if isinstance(found, dict) else found
    single = np.asarray(value).ravel()[0]
    return bool(single) if single.dtype == bool else float(single)


def quantus_faithfulness(scene: Scene, subsets: Array, baseline: float | str) -> Said:
    """Its Pearson correlation over the given subsets, (n, H, W), instead of subsets of NumPy's global generator."""
    chosen = [np.flatnonzero(subset) for subset in subsets]
    options = {"nr_runs": len(chosen), "subset_size": len(chosen[0]), "perturb_baseline": baseline}
    unused = mock.patch("numpy.random.uniform", return_value=np.zeros(1))  # drawn with every named baseline
    with mock.patch("numpy.random.choice", side_effect=chosen), unused:
        return quantus(scene, "FaithfulnessCorrelation", **options)


def _explained(scene: Scene) -> Any:
    def explain(model: torch.nn.Module, inputs: Any, targets: Any, **_: Any) -> Any:
        if scene.map is not None:
            return np.repeat(scene.map[None, None], len(inputs), 0).astype(np.float32)
        return _gradient(model, torch.as_tensor(inputs).float(), scene.target).numpy()

    return explain


def asks(scene: Scene, name: str, differs: str = "", moves: Array | None = None, **options: Any) -> Other:
    """A metric of Quantus on a scene."""
    shown = ", ".join(f"{k}={v}" for k, v in options.items())
    return Other(f"{name}({shown})", partial(quantus, scene, name, moves, **options), differs)


def quantus_mprt(scene: Scene) -> Said:
    """Mean rank correlation of its randomisation test."""
    with quiet():
        from quantus.functions.similarity_func import correlation_spearman

    return quantus(scene, "MPRT", similarity_func=correlation_spearman, return_average_correlation=True)


def quantus_similarity(name: str, a: Array, b: Array, plane: bool) -> float:
    """Of maps in the plane, or of their entries in a row."""
    with quiet():
        from quantus.functions import similarity_func

        found = getattr(similarity_func, name)(*((a, b) if plane else (a.ravel(), b.ravel())), win_size=3)
    return float(found)
