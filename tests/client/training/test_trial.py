"""`check` tries a private step on the device and never says ok to a GPU that is not used; orders are answered on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from client.errors import ModelRefused
from client.setup import check
from client.setup.check import Rung
from client.site import SiteSettings, TrainerSettings
from client.training import trial
from client.training.trial import Trial, tried
from tasks import task as tasks
from tasks.machine import device
from tasks.machine.checklist import ClaimState
from tasks.machine.device import Placement
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import EvaluateReport, TrainReport
from tests import second_device
from tests.client.hospital import TASK, Hospital, draw_archive, evaluate, train
from tests.second_device import DEVICE

ON = tasks.get(TASK)
Provision = Callable[..., SiteSettings]


def rung(site: SiteSettings) -> Rung:
    return check._device(site, ON)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second device is what ``cuda`` means."""
    real = device.find
    monkeypatch.setattr(device, "find", lambda named: DEVICE if named in ("auto", "cuda") else real(named))
    monkeypatch.setattr(device, "present", lambda: DEVICE)


def test_a_step_is_tried_on_both_and_compared(provision_hospital: Provision) -> None:
    site = provision_hospital(policy={"models": ["scatter_linear", "segresnet"]})
    with second_device.used() as state:
        made = tried(site, ON, Placement(DEVICE))
        assert state.operations["convolution"] > 50
    assert (made.network, made.failures) == ("segresnet", [])
    assert made.apart < 1e-4
    assert min(made.seconds, made.processor_seconds) > 0
    with pytest.raises(ModelRefused, match="raise max_memory_mb"):
        tried(site.model_copy(update={"max_memory_mb": 1}), ON, Placement(DEVICE))


def test_without_a_gpu_the_processor_is_ok_and_a_named_gpu_that_is_missing_fails(
    provision_hospital: Provision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    site = provision_hospital()
    for named, state in (("cpu", ClaimState.OK), ("auto", ClaimState.OK), ("cuda", ClaimState.FAIL)):
        told = rung(site.model_copy(update={"trainer": TrainerSettings(device=named)}))
        assert told.state is state
        assert bool(told.remedy) is (state is not ClaimState.OK)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_is_there_and_not_used_is_a_warning(provision_hospital: Provision) -> None:
    told = rung(provision_hospital())
    assert (told.state, told.remedy) == (ClaimState.WARN, "Set trainer.device: auto")
    assert "second:0 is there and not used: trainer.device is cpu" in told.found


GOOD = Trial("unet", 0.05, 3.1, 1200, 800, 1e-6, [])


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("made", "state", "words"),
    [
        (GOOD, ClaimState.OK, "a private step of unet takes 0.05 s and 1200 MiB, the processor's 3.1 s and 800 MiB"),
        (replace(GOOD, megabytes=None), ClaimState.OK, "takes 0.05 s, the processor's"),
        (replace(GOOD, failures=["device second:0 does not do it"]), ClaimState.FAIL, "second:0 is not used: device"),
        (replace(GOOD, apart=0.3), ClaimState.FAIL, "another step than the processor, 3e-01 of its largest value"),
        (replace(GOOD, seconds=4.0), ClaimState.WARN, "takes 4 s"),
    ],
)
def test_what_the_trial_has_shown_is_said(
    made: Trial, state: ClaimState, words: str, provision_hospital: Provision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "tried", lambda *_: made)
    told = rung(provision_hospital(trainer={"device": "auto"}))
    assert told.state is state
    assert words in told.found
    assert bool(told.remedy) is (state is not ClaimState.OK)


@pytest.mark.usefixtures("gpu")
def test_orders_are_answered_on_the_device_and_as_well_without_it(tmp_path: Path, document: StudyDocument) -> None:
    """A hospital whose GPU is lost in the middle of a study sends the same kind of reply, and tells its own log."""
    model: dict[str, Any] = {"name": "vit", "patch": 32, "width": 24, "layers": 1, "heads": 3}
    study = replace(document, model=model)
    hospital = Hospital.provision(
        tmp_path,
        draw_archive(tmp_path / "archive"),
        policy={"models": ["vit"]},
        trainer={"device": "cuda", "precision": "bfloat16"},
    )
    hospital.approve(study)
    shapes = []
    for number, lost in enumerate((False, True), start=1):
        with second_device.used(lost=lost) as state:
            reply = hospital.ask(train(study, number))
            assert isinstance(reply, TrainReport)
            assert isinstance(hospital.ask(evaluate(study, number)), EvaluateReport)
            assert (sum(state.operations.values()) > 100) is not lost
        shapes.append({name: value.shape for name, value in reply.arrays.items()})
    assert shapes[0] == shapes[1]
    log = hospital.log().splitlines()
    assert [line.split(" ", 1)[1] for line in log] == [
        f"study={study.name} round=2 device: device second:0 does not do it, so the processor does: AcceleratorError: "
        "second error: unspecified launch failure"
    ] * 2, "once for each order"


def test_resident_memory_is_told_where_the_system_tells_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert trial._resident("VmRSS") is None or trial._resident("VmRSS") > 1000
    monkeypatch.setattr(trial, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(trial, "_FORGET", tmp_path / "none" / "there")
    trial._forget_resident()
    assert trial._resident("VmRSS") is None
