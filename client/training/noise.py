"""Random numbers that privacy depends on: who takes part, and the Gaussian noise.

Where they come from. ``torch.Generator`` is a Mersenne twister of which ``manual_seed`` sets 32 bits: whoever tries
four thousand million seeds finds the noise, and coordinates without gradient, where a release is noise alone, tell the
rest of the stream. So in production nothing that privacy rests on is drawn from it: ``entropy()`` draws from AES-256 in
counter mode under a key from the operating system. Only a generator that a test passes in is seeded,
and one for patients whom nothing protects, so that a study without noise can be repeated to the last digit.

What is added. Floating-point noise does not reach every number, and which numbers a sum reaches tells the summand
(Mironov, CCS 2012; Jin et al., S&P 2022). Here the noise is drawn and added in double precision and the sum is rounded
to a grid a million times finer than the noise: about 2^30 noise values lead to each point of the grid, whatever the
summand, and rounding what is private keeps it private.
"""

from __future__ import annotations

import hashlib
import math
import os

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

_BLOCK = 1 << 15  # values at a time: all that is in hand stays in the processor's cache
_BLOCK_ON_A_DEVICE = 1 << 22  # which is slow at beginning something, and has no such cache
_PROCESSOR = torch.device("cpu")
_GRID_BITS = 20
_POSITIVE = 2**63 - 1


class Entropy(torch.Generator):
    """A generator whose privacy-relevant draws come from the operating system's randomness.

    Used as a plain ``torch.Generator`` it has a random 32-bit seed, which serves where nothing private hangs on it:
    which of a patient's images are looked at first.
    """

    def __init__(self) -> None:
        self.manual_seed(int.from_bytes(os.urandom(4), "little"))
        self._stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(os.urandom(16))).encryptor()

    def words(self, count: int) -> Tensor:
        """Independent random int64 of shape (count,), over the whole range."""
        return torch.from_numpy(np.frombuffer(bytearray(self._stream.update(bytes(8 * count))), dtype=np.int64))


def entropy() -> torch.Generator:
    """The generator used in production; no two are alike and none can be repeated."""
    return Entropy()


class Repeatable(torch.Generator):
    """A generator that a public seed begins, for patients whom nothing protects; noise is never drawn from it."""


def draws(seed: int | None, noise_multiplier: float, *what: str | int) -> torch.Generator:
    """What draws patients and images: ``entropy()`` wherever anything is protected.

    Args:
        seed: of the study document, which has one only where it asks for no privacy.
        noise_multiplier: of the steps that are taken; a hospital may protect its patients all the same.
        what: tells these draws from others of the same study: whose, of which round.
    """
    if seed is None or noise_multiplier:
        return entropy()
    generator = Repeatable()
    generator.manual_seed(_begun(seed, what))
    return generator


def roundings(seed: int | None, *what: str | int) -> np.random.Generator:
    """What decides which way an update is rounded when it leaves in fewer bits; it comes after the noise."""
    return np.random.default_rng() if seed is None else np.random.default_rng(_begun(seed, what))


def _begun(seed: int, what: tuple[str | int, ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr((seed, what)).encode()).digest()[:4], "little")


def uniform(count: int, generator: torch.Generator, device: torch.device = _PROCESSOR) -> Tensor:
    """float64 of shape (count,), uniform in (0, 1], in steps of 2^-63 near zero.

    The random bits are the processor's in any case; ``device`` makes numbers of them.
    """
    words = generator.words(count) if isinstance(generator, Entropy) else _seeded_words(count, generator)
    return words.to(device).bitwise_and_(_POSITIVE).double().add_(1).mul_(2.0**-63)


def noised(values: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Values plus independent Gaussian noise, on a grid that reveals nothing about the values.

    The noise is Box and Muller's (1958), in double precision; it reaches 9.3 standard deviations, beyond which a
    Gaussian has less than 1e-20 of its mass.

    Args:
        values: float32 or float64 of any shape, of any device that has double precision.
        std: standard deviation of the noise; 0 returns the values as they are.

    Raises:
        ValueError: the standard deviation is negative or not finite, or the generator's seed is public.
    """
    if not 0 <= std < math.inf:
        raise ValueError(f"the noise's standard deviation is {std}, it must be a finite number and not negative")
    if std == 0:
        return values
    if isinstance(generator, Repeatable):
        raise ValueError("noise from a public seed protects nobody")
    grid = 2.0 ** (math.floor(math.log2(std)) - _GRID_BITS)
    out = torch.empty(values.numel(), dtype=values.dtype, device=values.device)
    block = _BLOCK if values.device.type == "cpu" else _BLOCK_ON_A_DEVICE
    for given, result in zip(torch.split(values.reshape(-1), block), torch.split(out, block), strict=True):
        noise = _standard_normal(len(given), generator, values.device).mul_(std)
        result.copy_(noise.add_(given).div_(grid).round_().mul_(grid))
    return out.view(values.shape)


def _standard_normal(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    half = -(-count // 2)
    radius, angle = torch.split(uniform(2 * half, generator, device), half)
    radius = radius.log().mul_(-2).sqrt_()
    angle = angle.mul(2 * math.pi)
    return torch.cat([radius * angle.cos(), radius.mul(angle.sin_())])[:count]


def _seeded_words(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(-(2**63), _POSITIVE, (count,), generator=generator, dtype=torch.int64)
