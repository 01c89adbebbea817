"""The coordinator's commands where something is missing, and what all three programs say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from server import entry
from tasks.machine import version

SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize("program", ["consilium", "consilium-server", "consilium-site"])
def test_every_program_says_release_and_commit(program: str) -> None:
    shown = subprocess.run([SCRIPTS / program, "--version"], capture_output=True, text=True, timeout=120, check=True)
    assert shown.stdout.strip() == version.line(program)


@pytest.mark.parametrize(
    "line",
    [
        "consilium --help",
        "consilium compare --help",
        "consilium --cfg job",
        "consilium-server --help",
        "consilium-site --help",
    ],
)
def test_every_program_explains_itself(line: str, tmp_path: Path) -> None:
    program, *words = line.split()
    shown = subprocess.run(
        [SCRIPTS / program, *words], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert len(shown.stdout.splitlines()) > 5
    assert "Hydra" not in shown.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("main", "program"), [(entry.consilium, "consilium"), (entry.consilium_server, "consilium-server")]
)
def test_without_the_extra_they_say_what_to_install(
    main: object, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "status"])
    monkeypatch.setattr(entry.util, "find_spec", lambda name: None)
    assert callable(main)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{program} is for the coordinator and needs jinja2 and mlflow")
    assert "pip install 'consilium-fl[server]'" in said
