"""The coordinator's commands where something is missing, and what all three programs say of themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server import command_line, entry
from tasks.machine import version

SCRIPTS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "COLUMNS": "80"}


@pytest.mark.parametrize("program", ["consilium", "consilium-server", "consilium-site"])
def test_every_program_says_release_and_commit(program: str) -> None:
    shown = subprocess.run([SCRIPTS / program, "--version"], capture_output=True, text=True, timeout=120, check=True)
    assert shown.stdout.strip() == version.line(program)


@pytest.mark.parametrize(
    "line",
    [
        "consilium",
        "consilium --help",
        "consilium experiment=demo --help",
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


def test_consilium_alone_shows_its_help_and_what_can_be_chosen() -> None:
    for words in ([], ["--help"], ["-h"]):
        shown = subprocess.run(
            [SCRIPTS / "consilium", *words], capture_output=True, text=True, timeout=120, check=True, env=ENVIRONMENT
        ).stdout
        for command in command_line.COMMANDS:
            assert re.search(rf"\b{command}\b", shown), command
        assert re.search(r"experiment= .*\bdemo\b", shown, re.DOTALL)
        assert "conf/README.md" in shown
        assert not re.search(r"\s_\w", shown), "what others build on is no choice"
        assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("words", [["install=bash"], ["install=fish"], ["query=bash"]])
def test_a_shell_can_complete_settings(words: list[str]) -> None:
    line = "consilium experiment=de"
    environment = ENVIRONMENT | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    shown = subprocess.run(
        [SCRIPTS / "consilium", "-sc", *words], capture_output=True, text=True, timeout=120, check=True, env=environment
    ).stdout
    assert ("experiment=demo" in shown.split()) if words == ["query=bash"] else ("complet" in shown)


@pytest.mark.parametrize("program", ["consilium-site", "consilium-server"])
def test_a_shell_can_complete_commands(program: str) -> None:
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    environment = ENVIRONMENT | {variable: "source_bash"}
    shown = subprocess.run(
        [SCRIPTS / program], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    assert f"{variable}=complete_bash" in shown.stdout, "what the shell will ask is what is answered below"
    environment |= {variable: "complete_bash", "COMP_WORDS": f"{program} evid", "COMP_CWORD": "1"}
    shown = subprocess.run(
        [SCRIPTS / program], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    assert shown.stdout.split() == ["evidence"]


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
