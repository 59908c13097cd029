"""What `attrsens doctor` finds, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from attrsens.engine.noise import Move
from attrsens.engine.sanity import Sanity
from attrsens.models.census import Census, Gradients


@dataclass
class Loaded:
    """What was loaded. `layout` says in words how the weights lay where they came from."""

    name: str
    id: str
    source: str | None
    sha256: str | None
    architecture: str
    layout: list[str]
    parameters: int
    preprocess: dict[str, Any]
    classes: int
    class_names: list[str] | None


@dataclass
class FormInfo:
    """What is done to the network for speed, unless --no-fold: BatchNorms folded, those left with reasons, and the
    memory order, with the reason where it is not channels_last."""

    folded: int
    left: dict[str, str]
    memory_layout: str
    note: str


@dataclass
class Speed:
    """Passes a second: as runs get them, and the floor, the bare network's best over batches of 4, 8 and 16; those with
    gradients are None where there are none."""

    forward: float
    gradient: float | None
    floor_forward: float
    floor_gradient: float | None


@dataclass
class Verdict:
    """Whether a method works on the model at its defaults, why not, and what a map costs (expected seconds)."""

    method: str
    works: bool
    reason: str | None
    forward: int | None
    backward: int | None
    seconds: float | None


@dataclass
class Diagnosis:
    """What `attrsens doctor` finds. `problems` would make maps wrong or impossible; `notes` are worth knowing."""

    schema_version: int
    model: Loaded
    definitions: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batch_difference: float | None = None
    repeatable: bool | None = None
    census: Census | None = None
    gradients: Gradients | None = None
    sanity: Sanity | None = None
    form: FormInfo | None = None
    speed: Speed | None = None
    noise_floor: list[Move] = field(default_factory=list)
    methods: list[Verdict] = field(default_factory=list)
