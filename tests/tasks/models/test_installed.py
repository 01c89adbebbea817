"""A network of another package: looked up, never imported as a path, tried before it is used, refused with reasons."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.answers import Binary
from tasks.input_spec import InputSpec
from tasks.models import installed, registry
from tasks.models.registry import EntryRefused
from tests.own_package import BUILD, ENTRY, SMALL, install

FORM = InputSpec((1, 128, 128), (Binary(),) * 2)
SPEC: dict[str, Any] = {"name": "custom", "entry": ENTRY}


@pytest.fixture(autouse=True)
def _nothing_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_tried", set())


def test_an_installed_network_is_built_and_the_seed_decides_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path)
    one, same, other = (registry.build(SPEC, FORM, seed) for seed in (1, 1, 2))
    assert one.outputs(torch.rand(3, 1, 128, 128)).shape == (3, 2)
    assert not one.outlines
    first, second, third = (registry.arrays_of(each.trainable) for each in (one, same, other))
    assert all((first[name] == second[name]).all() for name in first)
    assert any((first[name] != third[name]).any() for name in first)
    assert installed.package_of(ENTRY) == "my-net 1.0"
    assert registry.build(SPEC | {"version": "my-net 1.0"}, FORM)


def test_what_no_package_declares_is_not_imported_whatever_its_text_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path)
    (tmp_path / "other.py").write_text("raise SystemExit('this was run')")
    for entry in ("other:build", "my_package.net:other", "my_package.net:build ", "os:system", "", "???"):
        with pytest.raises(EntryRefused, match=r"no package installed here declares it .*my_package\.net:build"):
            registry.build({"name": "custom", "entry": entry}, FORM)
    assert "other" not in sys.modules
    assert "my_package.net" not in sys.modules


def test_another_version_or_two_packages_of_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "a")
    with pytest.raises(EntryRefused, match=r"needs my-net 2\.0, my-net 1\.0 is installed here"):
        registry.build(SPEC | {"version": "my-net 2.0"}, FORM)
    assert "my_package.net" not in sys.modules
    install(monkeypatch, tmp_path / "b", name="my-other-net")
    with pytest.raises(EntryRefused, match=r"my-net 1\.0 and my-other-net 1\.0 both declare it"):
        registry.build(SPEC, FORM)


HEAD = "nn.Flatten(), nn.Linear(128 * 128, outputs)"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (f"{BUILD}nn.Sequential(nn.BatchNorm2d(1), {HEAD})", r"0: BatchNorm cannot support training with differential"),
        (f"{BUILD}nn.Sequential(nn.Dropout(0.5), {HEAD})", "another output for the same image .* dropout"),
        (f"{BUILD}nn.Flatten()", "nothing to train"),
        (f"{BUILD}nn.Sequential({HEAD}).double()", "1.weight, 1.bias: must be float32"),
        (f"{BUILD}nn.Sequential(nn.Conv2d(1, 1, 1).requires_grad_(False), {HEAD})", "0.weight, 0.bias: not trained"),
        (f"{BUILD}nn.Sequential(nn.Flatten(), nn.Linear(128 * 128, 5))", r"shape \(3, 5\) for 3 images, not \(3, 2\)"),
        (f"{BUILD}nn.Sequential(nn.Flatten(0), nn.Linear(3 * 128 * 128, 2))", r"shape \(2,\) for 3 images"),
        (f"{BUILD}nn.Linear(7, outputs)", r"fails on noise of the task's shape \(1, 128, 128\): RuntimeError: mat1"),
        (f"{BUILD}(shape, outputs)", "gives tuple, not a torch.nn.Module"),
        ("def build(shape):\n    return None", r"cannot be built: TypeError: build\(\) got an unexpected keyword"),
        ("def build(shape, outputs):\n    return 1 / 0", r"ZeroDivisionError: division by zero \(net.py, line 5\)"),
        ("import nonesuch_package", "cannot be built: ModuleNotFoundError"),
        (
            f"class Net(nn.Sequential):\n    def forward(self, x):\n        return super().forward(x - x.mean())\n"
            f"{BUILD}Net({HEAD})",
            "depends on the other images",
        ),
        (
            "class Net(nn.Sequential):\n    def forward(self, x):\n        return super().forward(x) / (x - x).sum()\n"
            f"{BUILD}Net({HEAD})",
            "not finite",
        ),
        (
            "class Counts(nn.Sequential):\n    def __init__(self, *layers):\n        super().__init__(*layers)\n"
            "        self.register_buffer('seen', torch.zeros(()))\n"
            "    def forward(self, x):\n        self.seen += len(x)\n        return super().forward(x)\n"
            f"{BUILD}Counts({HEAD})",
            "seen: changes while the network runs",
        ),
        (
            "class Net(nn.Sequential):\n    def forward(self, x):\n        return super().forward(x).detach()\n"
            f"{BUILD}Net({HEAD})",
            "do not depend on anything that is trained",
        ),
    ],
    ids=lambda value: value.split("\n")[-1][-40:] if "\n" in value else value[:30],
)
def test_a_network_that_cannot_be_trained_privately_is_refused_with_the_reason(
    code: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, code)
    with pytest.raises(EntryRefused, match=told) as caught:
        registry.build(SPEC, FORM)
    assert str(caught.value).startswith(f"model.entry={ENTRY}: ")
    assert "\n" not in str(caught.value)


def test_what_has_passed_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path, SMALL)
    registry.build(SPEC, FORM)
    monkeypatch.setattr(installed.trial, "problems", lambda *given: ["tried again"])
    registry.build(SPEC, FORM)
    with pytest.raises(EntryRefused, match="tried again"):
        registry.build(SPEC, InputSpec((1, 128, 128), (Binary(),) * 3))
