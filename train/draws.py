"""Random numbers that belong to a clip, not to the batch that it happens to be in.

Torch's generators give a clip other numbers when its batch is another. Here every number is a hash
of what it is for (SplitMix64, Steele et al. 2014), so that a teacher and a student, two processes
and a resumed run all see one and the same augmentation of a clip.
"""

import zlib
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


@dataclass(frozen=True)
class Draws:
    """One stream of random numbers for each clip of a batch, drawn from by name.

    A name gives the same numbers every time; other names give independent ones.
    """

    key: Tensor
    """int64 [batch]."""

    @classmethod
    def of(cls, seed: int, *numbers: Tensor) -> Self:
        """The streams of a seed and of ``numbers``, each int64 [batch], such as clip and view."""
        key = torch.full_like(numbers[0], seed)
        for number in numbers:
            key = _mix(key + _GOLDEN) ^ number
        return cls(_mix(key + _GOLDEN))

    def __len__(self) -> int:
        return len(self.key)

    def __getitem__(self, chosen: Tensor) -> Self:
        """The streams of the clips that an index or a mask chooses."""
        return type(self)(self.key[chosen])

    def uniform(self, name: str, limits: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """A number between ``limits`` for each clip, float32 [batch]."""
        return self.noise(name, 1)[:, 0] * (limits[1] - limits[0]) + limits[0]

    def chance(self, name: str, probability: float) -> Tensor:
        """True with ``probability``, bool [batch]."""
        return self.uniform(name) < probability

    def below(self, name: str, limit: Tensor | int) -> Tensor:
        """A whole number from 0 to ``limit`` - 1 for each clip, int64 [batch]."""
        return _shift(self._bits(name, 1)[:, 0], 1) % limit

    def noise(self, name: str, samples: int) -> Tensor:
        """Numbers spread evenly over [0, 1), float32 [batch, samples]."""
        # As many bits as float32 has.
        return _shift(self._bits(name, samples), 40).float() * 2.0**-24

    def _bits(self, name: str, count: int) -> Tensor:
        index = torch.arange(1, count + 1, device=self.key.device) * _GOLDEN
        return _mix(_mix(self.key ^ zlib.crc32(name.encode()))[:, None] + index)


def _shift(x: Tensor, bits: int) -> Tensor:
    """``x`` shifted right as if it had no sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)
