"""What tensors are computed on: the processor, or a device beside it, such as a GPU.

Parameters, optimizer, noise and whatever leaves stay with the processor. A device gets copies, and may be lost or short
of memory at any moment: what it cannot do, the processor does, and nothing that leaves tells which of them it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

_LOG = logging.getLogger(__name__)
_SHORT = ("out of memory", "alloc_failed")
"""What drivers say whose error has no class of its own, in lower case."""

R = TypeVar("R")
Tell = Callable[[str], None]

_TELL: ContextVar[Tell] = ContextVar("tell", default=_LOG.warning)

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@contextmanager
def telling(to: Tell) -> Iterator[None]:
    """Within it, in this thread, what becomes of devices is told there, and not to the process's log. It is of this
    machine and must not leave it."""
    token = _TELL.set(to)
    try:
        yield
    finally:
        _TELL.reset(token)


def tell(text: str) -> None:
    """Tell what a device has not done, see ``telling``."""
    _TELL.get()(text)


class NoSuchDevice(ValueError):
    """This machine, or this installation of PyTorch, does not have the device; the text says which, and what to do."""


@dataclass(frozen=True)
class Placement:
    """Where networks are computed, and how precisely while they are trained.

    Attributes:
        device: of features, scores and patients' gradients.
        precision: of the products in a network's forward and backward pass in training, float32 or bfloat16. Weights,
            losses, gradients, norms and sums, and all scores and features, are in float32 or better either way.
    """

    device: torch.device
    precision: torch.dtype = torch.float32

    @property
    def beside(self) -> bool:
        """Whether it is a device beside the processor."""
        return self.device.type != "cpu"

    def reduced(self) -> AbstractContextManager[Any]:
        """Within it products are computed in ``precision``.

        Weights are cast anew at each use: PyTorch's cache of casts is one for all threads, and each patient has one.
        """
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision, cache_enabled=False)


PROCESSOR = Placement(torch.device("cpu"))


def placement(device: str, precision: str = "float32") -> Placement:
    """The device that settings name; the processor, with a word in the log, where it is not there.

    Args:
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: one of ``PRECISIONS``.
    """
    try:
        return Placement(find(device), PRECISIONS[precision])
    except NoSuchDevice as error:
        tell(f"{error}; the processor is used")
        return Placement(PROCESSOR.device, PRECISIONS[precision])


def find(device: str) -> torch.device:
    """The device that a setting names.

    Raises:
        NoSuchDevice: it is not there.
    """
    if device == "auto":
        return present() or PROCESSOR.device
    found = torch.device(device)
    if found.type == "cuda":
        _require_cuda(found)
        # Float32 is float32, and the same patient's gradient is the same again.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    elif found.type == "mps" and not torch.backends.mps.is_available():
        raise NoSuchDevice("device mps: this is no Mac with an Apple GPU that PyTorch can use; set trainer.device: cpu")
    return found


def _require_cuda(device: torch.device) -> None:
    if torch.version.cuda is None and torch.version.hip is None:
        raise NoSuchDevice(
            f"device {device}: this PyTorch ({torch.__version__}) is built for the processor only; install the CUDA "
            "variant (client/README.md), or set trainer.device: cpu"
        )
    number = torch.cuda.device_count()
    if (device.index or 0) >= number:
        raise NoSuchDevice(
            f"device {device}: PyTorch sees {number} GPU{'' if number == 1 else 's'} here; check nvidia-smi, and that "
            "the container is given the GPU, or set trainer.device: cpu"
        )


def present() -> torch.device | None:
    """The first GPU of this machine that this installation can use."""
    if torch.cuda.is_available():
        return find("cuda:0")
    return torch.device("mps") if torch.backends.mps.is_available() else None


def name_of(device: torch.device) -> str:
    """What people call it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def has_doubles(device: torch.device) -> bool:
    """Whether it computes in double precision; Apple's GPUs do not."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):
        return False
    return True


def finished(device: torch.device) -> None:
    """Return when the device has done all that it was told."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def peak_bytes(device: torch.device) -> int | None:
    """The most memory that this process has had on the device since ``forget_peak``; ``None`` where it does not say."""
    peak = getattr(torch.get_device_module(device), "max_memory_allocated", None)
    return None if peak is None else int(peak(device))


def forget_peak(device: torch.device) -> None:
    """Begin to measure ``peak_bytes``."""
    reset = getattr(torch.get_device_module(device), "reset_peak_memory_stats", None)
    if reset is not None:
        reset(device)


class Portions:
    """How much a device is given at a time: half of it whenever its memory is short.

    Attributes:
        at_once: how many patients or images are in hand on the device.
    """

    def __init__(self, device: torch.device, at_once: int) -> None:
        self.device, self.at_once = device, at_once
        self._told = False

    def attempt(self, work: Callable[[int], R]) -> R | None:
        """What ``work(at_once)`` gives, with half as many at a time as often as memory is short; ``None`` where the
        device does not do it, so that the processor must. What fails once is tried again the next time: an order is not
        to take hours because of one image."""
        while True:
            try:
                return work(self.at_once)
            except RuntimeError as error:  # all that drivers raise is one
                # Not the error itself, whose traceback holds what is to be freed.
                said, short = f"{type(error).__name__}: {error}".splitlines()[0], is_short_of_memory(error)
            _free(self.device)
            if short and self.at_once > 1:
                self.at_once //= 2
                tell(f"device {self.device} is short of memory: {self.at_once} at a time from now on")
            else:
                self._tell(said)
                return None

    def _tell(self, said: str) -> None:
        if not self._told:
            tell(f"device {self.device} does not do it, so the processor does: {said}")
        self._told = True


def is_short_of_memory(error: RuntimeError) -> bool:
    """Whether a device's memory did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error).lower() for word in _SHORT)


def _free(device: torch.device) -> None:
    """Hand memory back that only the allocator holds."""
    try:
        torch.get_device_module(device).empty_cache()
    except (AttributeError, RuntimeError):  # of a device that has no such thing, or is lost
        return
