"""Wheels for the images: of their Python, and none for CUDA."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.container import wheels
from tests.container.wheels import WrongWheels

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("side", ["client", "server"])
def test_both_images_have_one_base_that_says_its_python(side: str) -> None:
    image = wheels.base((ROOT / side / "container" / "Containerfile").read_text("utf-8"))
    assert image == wheels.base((ROOT / wheels.CONTAINERFILE).read_text("utf-8"))
    assert wheels.python_of(image) == (3, 11)
    with pytest.raises(WrongWheels, match="PYTHON_OF_IMAGE"):
        wheels.python_of("registry.example.org/hardened@sha256:5")


@pytest.mark.parametrize(
    "name",
    [
        "nvidia_cublas_cu12-12.8.4.1-py3-none-manylinux_2_27_x86_64.whl",
        "nvidia-cudnn-cu13",
        "triton-3.4.0-cp311-cp311-linux_x86_64.whl",
        "torch-2.13.0+cu129-cp311-cp311-linux_x86_64.whl",
        "torch-2.13.0%2Bcu129-cp311-cp311-linux_x86_64.whl",
        "cuda_bindings-13.0.0-cp311-cp311-linux_x86_64.whl",
    ],
)
def test_what_is_for_cuda_is_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(WrongWheels, match="TORCH_INDEX"):
        wheels.refuse_cuda(["numpy-2.4.6-cp311-cp311-linux_x86_64.whl", name])


def test_what_is_for_the_cpu_is_not() -> None:
    wheels.refuse_cuda(["torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", "torch-2.13.0-cp311-cp311-linux_aarch64.whl"])
    wheels.refuse_cuda(["consilium_fl-0.2.0-py3-none-any.whl", "cryptography-50.0.2.whl", "scikit_learn-1.9.whl"])


def test_a_torch_for_cuda_is_known_by_what_it_needs() -> None:
    """As the public index has it on x86: its own version does not say so."""
    needed = ["filelock", "nvidia-cublas-cu12==12.8.4.1; platform_system == 'Linux'", "optree; extra == 'optree'"]
    report = {"install": [{"metadata": {"name": "torch", "version": "2.13.0", "requires_dist": needed}}]}
    assert wheels.needs(report) == ["torch-2.13.0", "filelock", "nvidia-cublas-cu12"]
    with pytest.raises(WrongWheels, match="nvidia-cublas-cu12"):
        wheels.refuse_cuda(wheels.needs(report))


def test_the_variant_for_gpus_is_made_on_request_only_and_then_has_cuda() -> None:
    wheels.require_cuda(["numpy-2.4.6.whl", "torch-2.13.0+cu130-cp311-cp311-linux_x86_64.whl"])
    wheels.require_cuda(["torch-2.13.0", "nvidia-cublas-cu12"])
    with pytest.raises(WrongWheels, match="make wheels-cuda TORCH_INDEX"):
        wheels.require_cuda(["numpy-2.4.6.whl", "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"])
    torch, rest = wheels.words("python3", "https://cuda.example.org/simple", cuda=True)
    assert torch[-3:] == ["--index-url", "https://cuda.example.org/simple", "torch"]
    assert {folder for words in (torch, rest) for folder in words if folder.startswith("wheels")} == {"wheels-cuda"}
    assert rest[-2:] == list(wheels.OURS_CUDA)
    assert "ARG WHEELS=wheels\n" in (ROOT / wheels.CONTAINERFILE).read_text("utf-8"), "the processor's is the default"


def test_torch_comes_from_the_index_that_is_named_for_it_and_nothing_else_does() -> None:
    torch, rest = wheels.words("python3", "https://cpu.example.org/simple")
    assert torch[-3:] == ["--index-url", "https://cpu.example.org/simple", "torch"]
    assert "--index-url" not in rest
    assert rest[-2:] == list(wheels.OURS)
    assert "--index-url" not in wheels.words("python3", "")[0]


def test_another_python_works_in_the_images_base(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(wheels, "_ahead", lambda index: [])
    monkeypatch.setattr(wheels, "refuse_cuda", lambda names: None)
    monkeypatch.setattr(wheels.subprocess, "run", lambda words, **_: ran.append(words))
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(()))
    monkeypatch.setenv("PYTHON_OF_IMAGE", f"3.{sys.version_info.minor + 1}")
    monkeypatch.setattr(wheels.shutil, "which", lambda name: f"/usr/bin/{name}")
    wheels.make("podman", "")
    assert ran[0][:3] == ["podman", "run", "--rm"]
    assert "python3 -m pip wheel" in ran[0][-1]
    monkeypatch.setattr(wheels.shutil, "which", lambda name: None)
    with pytest.raises(WrongWheels, match="there is no podman"):
        wheels.make("podman", "")
    monkeypatch.setenv("PYTHON_OF_IMAGE", f"3.{sys.version_info.minor}")
    ran.clear()
    wheels.make("podman", "")
    assert [words[0] for words in ran] == [sys.executable, sys.executable]
