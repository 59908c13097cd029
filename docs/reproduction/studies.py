"""Every study, the presets that make no claim of their own, and the numbers that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bnd
import hse
import sam
import sam_knobs
import smo
from study import Study

HERE = Path(__file__).parent
RESULTS, NETS = HERE / "results", HERE / "nets"
STUDIES: dict[str, Study] = {s.id: s for part in (sam, sam_knobs, bnd, smo, hse) for s in part.STUDIES}

# presets that draw figures, or whose claims stand under another study
FIGURES = {
    "sam-fig1": "a figure: twelve maps of one image",
    "sam-maps": "a figure",
    "sam-tennis": "a figure; its balls, drawn anew, are sample:tennis19 and sample:tennis84",
    "sam-wsl": "needs boxes and a robust twin at once; lite0 alone has no published number",
    "sam-accuracy": "no published numbers of the reference settings alone",
    "sam-acc-45-sp-s": "part of sam-acc-45, which has sliding patch with far apart sizes",
    "sam-marg-46-seed": "under sam-hidden",
    "sam-marg-46-size": "under sam-hidden",
    "bnd-baseline": "a figure",
    "bnd-dist": "figures of distributions; bnd-loc has their means",
    "bnd-maps": "a figure",
    "smo-maps": "a figure",
    "smo-figs": "a figure",
    "smo-infid-sigma": "curves of a repository, no claim",
    "smo-infid-beta": "curves of a repository, no claim",
    "smo-attack-delta": "at 224 pixels: hours an image on two cores; smo-attack-cifar asks the same at 32 pixels",
    "smo-attack-delta-beta": "as smo-attack-delta",
    "smo-attack-delta-smoothed": "as smo-attack-delta",
    "smo-attack-stadv": "as smo-attack-delta",
    "smo-attack-stadv-beta": "as smo-attack-delta",
    "smo-attack-all": "as smo-attack-delta",
    "smo-attack-all-beta": "as smo-attack-delta",
    "hse-ratio-radius": "under hse-ratio, at one radius",
    "hse-topk": "a figure",
}


def results() -> dict[str, dict[str, Any]]:
    """study -> its kept numbers."""
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(RESULTS.glob("*.json"))}
