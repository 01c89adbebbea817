"""The command's last line of defence: whatever goes wrong is a sentence, an exit code, and no traceback."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from conf import load
from server import command_line, launch, simulation
from server.errors import HospitalNotReady, StudyError
from server.study.document import open_study
from server.study.folder import locked
from tests.server import scripted


def command(
    monkeypatch: pytest.MonkeyPatch, output: Path, *overrides: str, raises: BaseException | None = None
) -> int | str | None:
    """Run ``consilium`` in this process with hospitals that cannot be provisioned; gives the exit code."""

    def provision(*arguments: Any) -> simulation.Hospitals:
        assert raises is not None, "the hospitals must not be provisioned"
        raise raises

    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["consilium", f"output_dir={output}", "tracking=none", *overrides])
    with pytest.raises(SystemExit) as caught:
        command_line.main(provision, scripted.load_app)
    return caught.value.code


def test_a_hospital_that_is_not_ready_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Brackets in it are shown as they are: foreign text is no markup, and cannot end the program."""
    assert command(monkeypatch, tmp_path, raises=HospitalNotReady("cedar: [/red] no [bold]images[/]")) == 2
    shown = capsys.readouterr().out
    assert "HospitalNotReady: cedar: [/red] no [bold]images[/]" in shown
    assert list((tmp_path / "studies").iterdir()) == [], "no study is left behind that never was"


def test_a_full_disk_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(monkeypatch, tmp_path, raises=OSError(28, "No space left on device", "/x/y")) == 1
    shown = capsys.readouterr().out
    assert "/x/y: the disk is full" in shown
    assert "Every committed round is kept" in shown


def test_ctrl_c_says_that_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(monkeypatch, tmp_path, raises=KeyboardInterrupt()) == 130
    assert "Every committed round is kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["task.name=nonesuch"],
            "there is no task 'nonesuch'; tasks are: adrenalmnist3d, bloodmnist, brain_mr",
        ),
        (["task=pneumonia_xray"], "resolution=64 would enlarge"),
        (["model=densenet121", "model.groups=7"], "densenet121"),
        (["model.J=9"], "lower J"),
        (["training.steps=0"], "training.steps=0"),
    ],
)
def test_a_study_that_cannot_be_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    overrides: list[str],
    told: str,
) -> None:
    output = tmp_path / "out"
    assert command(monkeypatch, output, *overrides) == 2
    assert told in capsys.readouterr().out
    assert not output.exists()


def test_a_study_that_another_process_works_on_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = load.load([f"output_dir={tmp_path}", "tracking=none"])
    with locked(folder := open_study(asked)):
        assert command(monkeypatch, tmp_path) == 1
    assert f"another process works on {folder.name}" in capsys.readouterr().out


def test_a_study_is_found_again_by_its_name_with_its_own_configuration(tmp_path: Path) -> None:
    began = load.load(["experiment=demo", "federation.rounds=7", f"output_dir={tmp_path}"])
    folder = tmp_path / "studies" / "demo-0123abcd-1"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps({"config": load.to_plain(began)}))
    asked = load.load(["experiment=busi", "data_root=x", f"output_dir={tmp_path}", f"resume={folder.name}"])
    assert launch.named(asked) == began
    (folder / "study.json").write_text(json.dumps({"config": load.to_plain(began), "finished": True}))
    with pytest.raises(StudyError, match="has finished"):
        launch.named(asked)
    with pytest.raises(StudyError, match="there is no such study"):
        launch.named(load.load([f"output_dir={tmp_path}", "resume=demo-0123abcd-2"]))


def test_a_polite_end_is_told_as_ctrl_c_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """SIGTERM: what a job's time limit or a shutdown sends."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(simulation, "open_study", lambda study: signal.raise_signal(signal.SIGTERM))
    assert command(monkeypatch, tmp_path) == 130
    assert "Every committed round is kept" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_output_folder_that_cannot_be_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/consilium")):
        assert command(monkeypatch, place) == 2
        shown = capsys.readouterr().out
        assert f"output_dir={place}: " in shown
        assert "set output_dir=FOLDER" in shown
