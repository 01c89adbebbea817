"""A settings file that is not there, is no YAML, or has a setting that there is not: one sentence, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from client.errors import SiteMisconfigured
from client.setup.provisioning import write_example
from client.site import load


def test_a_file_that_is_not_there_is_told_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(SiteMisconfigured, match=r"there is no .*none\.yaml: name yours with --site, or .* init --site"):
        load(tmp_path / "none.yaml")


def test_a_broken_line_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("name: a: b\n")
    with pytest.raises(SiteMisconfigured, match=r"line 1, column 8.*correct that line") as caught:
        load(tmp_path / "site.yaml")
    assert "\n" not in str(caught.value)


def test_a_setting_that_there_is_not_names_the_one_that_was_meant(tmp_path: Path) -> None:
    write_example(tmp_path / "site.yaml", "st-anne")
    values = yaml.safe_load((tmp_path / "site.yaml").read_text("utf-8"))
    values |= {"public_sise": 3, "zzzzzz": 1, "policy": values["policy"] | {"max_epsilon_studdy": 3}}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SiteMisconfigured) as caught:
        load(tmp_path / "site.yaml")
    told = str(caught.value)
    assert "public_sise: there is no such setting here; did you mean public_size?" in told
    assert "policy.max_epsilon_studdy: there is no such setting here; did you mean max_epsilon_study?" in told
    assert "zzzzzz: there is no such setting here; take it out" in told
