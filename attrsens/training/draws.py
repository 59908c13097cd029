"""Draws that a network makes by itself, of initial weights and in dropout, which know torch's own generators only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def drawing(seed: int, purpose: str, device: torch.device) -> Iterator[None]:
    """While active, torch's generators draw by seed and purpose; afterwards they are where they were."""
    number = int.from_bytes(hashlib.blake2b(f"{seed}\n{purpose}".encode(), digest_size=7).digest())
    own = device.index if device.index is not None else torch.cuda.current_device() if device.type == "cuda" else 0
    cards = [own] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.default_generator.manual_seed(number)
        for card in cards:
            torch.cuda.default_generators[card].manual_seed(number)
        yield
