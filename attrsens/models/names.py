"""What can be said of names without importing torch or torchvision."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

from attrsens.errors import AttrsensError


@cache
def torchvision_names() -> tuple[str, ...]:
    """torchvision's classification models, read from its source text, since importing it takes a second."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return ()
    pattern = re.compile(r'^@register_model\((?:name="(\w+)")?\)\n(?:@.*\n)*def (\w+)', re.M)
    folder = Path(spec.submodule_search_locations[0]) / "models"
    found = [m for path in sorted(folder.glob("*.py")) for m in pattern.findall(path.read_text(encoding="utf-8"))]
    return tuple(sorted(given or function for given, function in found))


def check_device(name: str) -> None:
    """Raise unless the name is that of a device, present or not.

    Raises:
        AttrsensError: lists what a device can be called.
    """
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,4})?", name):
        raise AttrsensError(f"unknown device {name!r}; devices: auto, cpu, cuda, cuda:INDEX")
