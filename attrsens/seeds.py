"""Random draws that depend on what they are for, and on nothing else.

A draw is addressed by (seed, image, purpose, index). Philox is counter-based: the key comes from the first three
and the counter from the index, so draw 17 is the same whatever the batch size, order, device or resume, and the
first 50 of 800 draws are the 50 of a shorter run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class Stream:
    """Independent float32 draws, one array for each index.

    Args:
        seed: the user's seed.
        image: hash of the image the draws belong to; "" for draws that every image shares.
        purpose: what they are for, such as "noise".
    """

    def __init__(self, seed: int, image: str, purpose: str) -> None:
        text = f"{seed}\n{image}\n{purpose}".encode()
        self._key = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), dtype="<u8")

    def uniform(self, indices: Iterable[int], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Draws from U[0, 1), shape (len(indices), *shape)."""
        wanted = list(indices)
        out = np.empty((len(wanted), int(np.prod(shape))), np.float32)
        for i, row in zip(wanted, out, strict=True):
            self._generator(i).random(dtype=np.float32, out=row)
        return out.reshape(len(wanted), *shape)

    def normal(self, indices: Iterable[int], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Draws from N(0, 1) by Box and Muller (twice as fast as numpy's ziggurat), shape (len(indices), *shape).

        A uniform draw has 24 bits, so values stay within 5.8 standard deviations.
        """
        wanted = list(indices)
        size = int(np.prod(shape))
        half = (size + 1) // 2
        out = np.empty((len(wanted), 2 * half), np.float32)
        for i, pair in zip(wanted, out, strict=True):
            u = self._generator(i).random(2 * half, dtype=np.float32)
            radius, angle = u[:half], u[half:]  # in place: fresh memory costs as much as the sums
            np.log1p(np.negative(radius, out=radius), out=radius)
            np.sqrt(np.multiply(radius, np.float32(-2), out=radius), out=radius)
            np.multiply(angle, np.float32(2 * np.pi), out=angle)
            np.multiply(np.cos(angle, out=pair[:half]), radius, out=pair[:half])
            np.multiply(np.sin(angle, out=pair[half:]), radius, out=pair[half:])
        return np.ascontiguousarray(out[:, :size]).reshape(len(wanted), *shape)

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, 0, index]))
