"""A setting names a device that is there or is told that it is not; what a device fails at falls to the processor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tasks.machine import device
from tasks.machine.device import PROCESSOR, NoSuchDevice, Placement, Portions, find, placement, telling
from tests import second_device


def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_auto_is_the_processor_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_gpu(monkeypatch)
    told: list[str] = []
    with telling(told.append):
        assert placement("auto") == placement("cpu") == PROCESSOR
    assert told == []
    assert not PROCESSOR.beside


@pytest.mark.parametrize(
    ("named", "built", "words"),
    [
        ("cuda", None, "is built for the processor only; install the CUDA variant"),
        ("cuda:1", "13.0", "PyTorch sees 0 GPUs here; check nvidia-smi"),
        ("mps", None, "no Mac with an Apple GPU"),
    ],
)
def test_a_device_that_is_not_there_is_told_and_the_processor_computes(
    named: str, built: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_gpu(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", built)
    told: list[str] = []
    with telling(told.append):
        found = placement(named, "bfloat16")
    assert found == Placement(PROCESSOR.device, torch.bfloat16)
    (said,) = told
    assert words in said
    assert said.endswith("set trainer.device: cpu; the processor is used")
    with pytest.raises(NoSuchDevice, match=f"device {named}"):
        find(named)


def test_a_gpu_computes_float32_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own default lets convolutions drop 13 of 23 bits on newer GPUs."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("allow_tf32", "deterministic", "benchmark"):
        monkeypatch.setattr(torch.backends.cudnn, name, name != "deterministic")
    assert find("cuda:1") == torch.device("cuda", 1)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.deterministic


def failing(error: Exception, above: int) -> Callable[[int], int]:
    def work(at_once: int) -> int:
        if at_once > above:
            raise error
        return at_once

    return work


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_short_of_memory_it_is_given_half_and_says_so(error: Exception) -> None:
    portions, told = Portions(second_device.DEVICE, 12), list[str]()
    with telling(told.append):
        assert portions.attempt(failing(error, 4)) == 3
        assert portions.attempt(failing(error, 4)) == 3, "and stays there"
        assert told == [f"device second:0 is short of memory: {n} at a time from now on" for n in (6, 3)]
        assert portions.attempt(failing(error, 0)) is None, "one is not halved"
    assert len(told) == 4


def test_what_fails_otherwise_is_the_processors_at_once_and_told_once() -> None:
    portions, told = Portions(second_device.DEVICE, 8), list[str]()
    with telling(told.append):
        for _ in range(3):
            assert portions.attempt(failing(torch.AcceleratorError("launch failure"), 0)) is None
        assert portions.attempt(failing(RuntimeError(), 8)) == 8, "tried again"
    assert told == ["device second:0 does not do it, so the processor does: AcceleratorError: launch failure"]
    with pytest.raises(ValueError, match="no error of a device"):
        portions.attempt(failing(ValueError("no error of a device"), 0))


def test_the_second_device_is_one() -> None:
    """Else tests on it would show nothing: products across are refused, what crosses is counted, doubles may lack."""
    assert device.name_of(second_device.DEVICE) == "second:0"
    assert device.has_doubles(second_device.DEVICE)
    with second_device.used(doubles=False) as state:
        assert not device.has_doubles(second_device.DEVICE)
        there = torch.ones(3).to("second")
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="same device"):
            torch.ones(3) + there
        assert torch.equal((there + 1).to("cpu"), torch.full((3,), 2.0))
        assert state.crossed == {"in": 3, "out": 3}
    device.finished(second_device.DEVICE)
    device.forget_peak(second_device.DEVICE)
    assert device.peak_bytes(second_device.DEVICE) is None
