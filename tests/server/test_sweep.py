"""Studies of one command line tell how they ended, from whatever process; one that fails keeps none from its turn."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from server import command_line, sweep
from server.sweep import SweptStudy

NOTE = "import sys; from pathlib import Path; from server import sweep; sweep.note(sys.argv[1:], Path(sys.argv[1]))"


def test_only_what_is_played_in_a_sweep_is_noted() -> None:
    assert not sweep.is_under_way()
    with sweep.under_way() as notes:
        assert sweep.is_under_way()
        sweep.note(["seed=1"], Path("/studies/a"))
        sweep.note(["seed=2"], None, failed="no answer\nof anybody")
        assert sweep.noted(notes) == [
            SweptStudy(["seed=1"], Path("/studies/a")),
            SweptStudy(["seed=2"], None, "no answer\nof anybody"),
        ]
    assert not sweep.is_under_way()
    assert not notes.exists()


def test_other_processes_note_in_the_same_place() -> None:
    with sweep.under_way() as notes:
        words = [f"seed={number}" for number in range(6)]
        children = [subprocess.Popen([sys.executable, "-c", NOTE, word]) for word in words]
        assert [child.wait(60) for child in children] == [0] * 6
        assert sorted(ended.words[0] for ended in sweep.noted(notes)) == words


def test_a_machine_that_does_not_share_the_place_says_so_and_its_study_is_kept(tmp_path: Path) -> None:
    out = StringIO()
    with sweep.under_way() as notes:
        notes.unlink()
        command_line._note(["seed=1"], tmp_path, Console(file=out, width=200))
    assert "Not in the sweep's comparison" in out.getvalue()


def test_only_the_process_that_began_moves_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if there were a terminal
    with sweep.under_way():
        assert sweep.console().is_interactive
        monkeypatch.setenv("CONSILIUM_SWEEP_PROCESS", str(os.getppid()))
        assert not sweep.console().is_interactive


def test_what_failed_is_told_by_the_words_that_differ_and_the_exit_code() -> None:
    out = StringIO()
    ended = [
        SweptStudy(["experiment=demo", "seed=1"], Path("/studies/a")),
        SweptStudy(["experiment=demo", "seed=2"], None, "no answer\nof anybody"),
    ]
    with pytest.raises(SystemExit) as left:
        command_line._after_a_sweep(ended, Console(file=out, width=200))
    assert left.value.code == 1
    assert out.getvalue() == "Failed: seed=2: no answer\n1 of 2 studies failed; their words start them again.\n"


def test_one_study_needs_no_comparison() -> None:
    out = StringIO()
    command_line._after_a_sweep([SweptStudy(["seed=1"], Path("/studies/a"))], Console(file=out))
    assert out.getvalue() == ""


def test_a_sweep_of_which_nothing_is_heard_is_not_silent() -> None:
    """Its jobs ran on machines that do not share the place of the notes."""
    out = StringIO()
    command_line._after_a_sweep([], Console(file=out, width=200))
    assert "No study has told how it ended" in out.getvalue()
    assert "TMPDIR" in out.getvalue()


def test_a_study_without_a_folder_is_one_of_those_that_are_counted() -> None:
    """As a survey, which has nothing to compare."""
    out = StringIO()
    ended = [SweptStudy(["seed=1"], None), SweptStudy(["seed=2"], None, "no answer")]
    with pytest.raises(SystemExit):
        command_line._after_a_sweep(ended, Console(file=out, width=200))
    assert "1 of 2 studies failed" in out.getvalue()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("output_dir={file}",), 2, "File error: {file}/sweeps: a part of the path is a file"),
        (("output_dir={folder}/out", "hydra.sweeper.max_batch_size=0"), 70, "did not foresee (AssertionError: )"),
    ],
)
def test_what_a_sweeper_raises_is_told_in_one_sentence(
    tmp_path: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    given = [word.format(file=file, folder=tmp_path) for word in words]
    command = [sys.executable, "-m", "server", "experiment=demo", "-m", *given, "seed=1,2"]
    environment = os.environ | {"COLUMNS": "200"}
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert ended.returncode == code, ended.stderr
    assert told.format(file=file) in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_sign_of_a_sweep_may_stand_anywhere() -> None:
    told = ["-m", "ask.by=[label]", "seed=1,2", "experiment=demo"]
    for place in range(1, 4):
        words = ["ask", "seed=1,2", "experiment=demo"]
        words.insert(place, "-m")
        assert command_line.in_place_of_a_study(words) == told
