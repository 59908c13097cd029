"""How far can an image classifier's explanation be trusted?

>>> import attrsens
>>> report = attrsens.explain("sample:chelsea", method="sg:n=50")
>>> report.attributions[0].map.shape
(224, 224)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attrsens.engine.doctor import doctor as doctor
    from attrsens.engine.report import Report as Report
    from attrsens.engine.train import train as train
    from attrsens.engine.verbs import attack as attack
    from attrsens.engine.verbs import compare as compare
    from attrsens.engine.verbs import explain as explain
    from attrsens.engine.verbs import score as score
    from attrsens.engine.verbs import sweep as sweep
    from attrsens.errors import AttrsensError as AttrsensError
    from attrsens.explainer import Explainer as Explainer
    from attrsens.heatmaps import Attribution as Attribution
    from attrsens.models.classifier import Classifier as Classifier
    from attrsens.models.zoo import load as load
    from attrsens.render import Writer as Writer
    from attrsens.spec import ATTACKS as ATTACKS
    from attrsens.spec import METHODS as METHODS
    from attrsens.spec import SCORES as SCORES
    from attrsens.spec import SIMILARITIES as SIMILARITIES

_HOME = {
    "ATTACKS": "spec",
    "AttrsensError": "errors",
    "Attribution": "heatmaps",
    "Classifier": "models.classifier",
    "Explainer": "explainer",
    "METHODS": "spec",
    "Report": "engine.report",
    "SCORES": "spec",
    "SIMILARITIES": "spec",
    "Writer": "render",
    "attack": "engine.verbs",
    "compare": "engine.verbs",
    "doctor": "engine.doctor",
    "explain": "engine.verbs",
    "load": "models.zoo",
    "score": "engine.verbs",
    "sweep": "engine.verbs",
    "train": "engine.train",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'attrsens' has no attribute {name!r}")
    return getattr(importlib.import_module(f"attrsens.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
