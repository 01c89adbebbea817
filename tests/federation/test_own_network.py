"""`conf/model/README.md` followed: a package of one's own, installed without pip, in a study of three hospitals."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from conf.load import FOLDER, ConfigError
from server import api, command_line
from server.__main__ import client_app, provision_hospitals
from tasks.models import installed, model_file
from tests.federation.embedded import HOSPITALS, TINY
from tests.own_package import BUILD, ENTRY, install

PAGE = (FOLDER / "model" / "README.md").read_text("utf-8")
WORDS = ("model=custom", f"model.entry={ENTRY}", "evaluation.arms=[]", "federation.rounds=1")


@pytest.fixture(autouse=True)
def _nothing_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_tried", set())


def block(language: str) -> str:
    """The page's first block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def settings(output: Path) -> list[str]:
    return [word for word in (*TINY, *WORDS, f"output_dir={output}") if not word.startswith("model.") or ENTRY in word]


def test_the_pages_network_trains_privately_and_its_model_scores_where_the_package_is(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = tomllib.loads(block("toml"))
    (entry,) = declared["project"]["entry-points"]["consilium.models"].values()
    assert entry == ENTRY
    install(monkeypatch, tmp_path, block("python"), name=declared["project"]["name"])
    found = api.run(api.configure(*settings(ground), "experiment=demo"))
    assert list(found.to_frame()["hospital"]) == list(HOSPITALS)
    assert (found.to_frame()["epsilon"] > 0).all()
    content = (found.folder / model_file.FILE).read_bytes()
    assert model_file.unpack(content)[0].model | {"name": "custom"} == {
        "name": "custom",
        "entry": ENTRY,
        "version": "my-net 1.0",
        "weights": "",
        "freeze": "nothing",
    }
    assert found.model().head.model["version"] == "my-net 1.0"


def test_what_opacus_refuses_is_shown_to_the_researcher_and_no_hospital_is_founded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, tmp_path, f"{BUILD}nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16384), nn.Linear(16384, 1))")
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    monkeypatch.setattr("sys.argv", ["consilium", *settings(tmp_path / "outputs")])
    with pytest.raises(SystemExit) as caught:
        command_line.main(provision_hospitals, client_app)
    shown = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 2, shown
    assert f"model.entry={ENTRY}: 1: BatchNorm cannot support training with differential privacy" in shown
    assert not (tmp_path / "outputs").exists()


def test_a_package_that_is_not_installed_is_told_with_the_page(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"my_package\.net:build: no package .* conf/model/README\.md"):
        api.run(api.configure(*settings(tmp_path)))
    with pytest.raises(ConfigError, match=r"model\.entry=/etc/passwd: must be MODULE:BUILDER"):
        api.configure(*settings(tmp_path), "model.entry=/etc/passwd")
    with pytest.raises(ConfigError, match=r"model\.entry: has no value"):
        api.configure("model=custom")
