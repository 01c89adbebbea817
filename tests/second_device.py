"""A second device without hardware: PyTorch's place for foreign devices (PrivateUse1), with the processor behind it.

Its tensors have another ``device`` and another type, autograd runs them on a thread of their own, as a GPU's, and a
product of one of them with a tensor of the processor is an error, as on a GPU. So code that forgets to move something,
makes a constant in the wrong place, or moves something without saying so, fails here. What crosses is counted. It can
be short of memory, fail, and be lost for good. How fast a GPU is, and how it rounds, only a GPU shows
(``tests/benchmarks/device_check.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "second"
_CROSSING = ("_to_copy", "copy_", "_local_scalar_dense")


@dataclass
class State:
    """What the device does, and what has been done with it.

    Attributes:
        operations: how often each operator ran on it.
        crossed: values that came to it (``in``), left it (``out``), and single numbers that were read (``read``).
        memory: most values in one new tensor; beyond it there is no memory.
        fails: names of operators that it does not have.
        lost: nothing works any more.
        doubles: whether it has double precision.
    """

    operations: Counter[str] = field(default_factory=Counter)
    crossed: Counter[str] = field(default_factory=Counter)
    memory: float = float("inf")
    fails: frozenset[str] = frozenset()
    lost: bool = False
    doubles: bool = True


state = State()


class There(Tensor):
    """A tensor on the second device; ``held`` is its content."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        _note(name)
        if name == "_to_copy":
            return _copied(*args, **kwargs)
        if name == "copy_":
            return _overwritten(*args)
        if name == "_local_scalar_dense":
            state.crossed["read"] += 1
        elif strangers := [t for t in tree_leaves((args, kwargs)) if _is_stranger(t)]:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {name} has one of {strangers[0].device} beside "
                f"those of {NAME}:0"
            )
        if "device" in kwargs:
            kwargs = kwargs | {"device": "cpu"}
        return _there(func(*tree_map(_held, args), **tree_map(_held, kwargs)), args)


def _note(name: str) -> None:
    if state.lost:
        raise torch.AcceleratorError("second error: unspecified launch failure")
    if name in state.fails:
        raise NotImplementedError(f"the operator {name} is not implemented for the device {NAME}")
    state.operations[name] += 1


def _held(value: Any) -> Any:
    return value.held if isinstance(value, There) else value


def _is_stranger(value: Any) -> bool:
    """A tensor of the processor that is no single number; such numbers may go everywhere, as on a GPU."""
    return isinstance(value, Tensor) and not isinstance(value, There) and value.dim() > 0


def _there(result: Any, given: Any) -> Any:
    """The results as tensors of the device; an operator that changes one of its arguments gives that one."""
    own = {id(t.held): t for t in tree_leaves(given) if isinstance(t, There)}

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return own[id(value)] if id(value) in own else _fitting(value)

    return tree_map(moved, result)


def _fitting(held: Tensor) -> There:
    if held.numel() > state.memory:
        raise torch.OutOfMemoryError(f"second out of memory: {held.numel()} values")
    if held.dtype == torch.float64 and not state.doubles:
        raise TypeError("the second device has no float64")
    return There(held)


def _copied(source: Tensor, device: Any = None, **options: Any) -> Tensor:
    to = source.device if device is None else torch.device(device)
    content = torch.ops.aten._to_copy.default(_held(source), **options)
    if to.type == NAME:
        if not isinstance(source, There):
            state.crossed["in"] += content.numel()
        return _fitting(content)
    state.crossed["out"] += content.numel()
    return content


def _overwritten(target: Tensor, source: Tensor, *_blocking: Any) -> Tensor:
    if isinstance(target, There) and not isinstance(source, There):
        state.crossed["in"] += source.numel()
    elif not isinstance(target, There):
        state.crossed["out"] += source.numel()
    _held(target).copy_(_held(source))
    return target


def _empty(size: Any, *_: Any, dtype: Any = None, **__: Any) -> Tensor:
    _note("empty")
    return _fitting(torch.empty(size, dtype=dtype))


def _empty_strided(size: Any, stride: Any, *_: Any, dtype: Any = None, **__: Any) -> Tensor:
    _note("empty_strided")
    return _fitting(torch.empty_strided(size, stride, dtype=dtype))


class _Module:
    """What ``torch.second`` has to have."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """It draws nothing."""

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def synchronize(self) -> None:
        """All is done at once."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _cast(name: str) -> Any:
    """Products in the lower precision, as autocast has them on every device."""
    product = getattr(torch.ops.aten, name)

    def run(*args: Any) -> Any:
        lower = torch.get_autocast_dtype(NAME)
        with torch.autocast(NAME, enabled=False):
            return product(*[a.to(lower) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args])

    return run


def _registered() -> list[torch.library.Library]:
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library, casts = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.impl("empty.memory_format", _empty, "PrivateUse1")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    for name in ("conv2d", "conv3d", "linear", "matmul"):
        library.impl(name, _cast(name), "AutocastPrivateUse1")
    casts.fallback(torch.library.fallthrough_kernel)
    return [library, casts]


_LIBRARIES = _registered()
"""They must live as long as the device."""
DEVICE = torch.device(NAME, 0)


@contextmanager
def used(**how: Any) -> Iterator[State]:
    """The device as ``State`` says, with nothing counted."""
    for name, value in vars(State(**how)).items():
        setattr(state, name, value)
    try:
        yield state
    finally:
        for name, value in vars(State()).items():
            setattr(state, name, value)
