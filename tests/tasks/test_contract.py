"""Contract files: those of this release are sound, one digest means one contract, bad files are told line by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks import contract as contracts
from tasks import task as tasks
from tasks.contract import BadContract

BREAST = Path(contracts.__file__).parent / "breast_ultrasound" / "contract.yaml"


def _bad(folder: Path, text: str) -> str:
    path = folder / "contract.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(BadContract) as caught:
        contracts.read(path)
    return str(caught.value)


@pytest.mark.parametrize("name", tasks.clinical())
def test_every_task_has_a_contract_that_refuses_what_has_lost_fidelity(name: str) -> None:
    contract = contracts.of_task(name)
    rejecting = {rule.check for rule in contract.rules if rule.on_violation == "reject"}
    wanted = {"not_secondary_capture", "not_photographed", "lossy_history", "lossless_syntax", "no_jpeg_grid", "organ"}
    assert {*wanted, "not_burned_in"} <= rejecting
    assert any(rule.check == "no_text" for rule in contract.rules)
    assert contract.derived in ("simulated_only", "refuse")


def test_the_digest_is_of_what_is_said_and_not_of_how_it_is_written(tmp_path: Path) -> None:
    values = yaml.safe_load(BREAST.read_text("utf-8"))
    again = tmp_path / "contract.yaml"
    again.write_text("# a comment\n" + yaml.safe_dump(values, sort_keys=True), "utf-8")
    assert contracts.digest(contracts.read(again)) == contracts.digest_of_task("breast_ultrasound")
    values["join"]["conforming"] = 0.81
    again.write_text(yaml.safe_dump(values), "utf-8")
    assert contracts.digest(contracts.read(again)) != contracts.digest_of_task("breast_ultrasound")


def test_the_order_of_rules_is_part_of_the_digest(tmp_path: Path) -> None:
    """The first rule that fails gives the reason, so another order is another report."""
    values: dict[str, Any] = yaml.safe_load(BREAST.read_text("utf-8"))
    values["rules"].reverse()
    path = tmp_path / "contract.yaml"
    path.write_text(yaml.safe_dump(values), "utf-8")
    assert contracts.digest(contracts.read(path)) != contracts.digest_of_task("breast_ultrasound")


@pytest.mark.parametrize("key", ["on_violation", "on_missing"])
def test_ultrasound_is_not_taken_with_the_text_around_it(key: str, tmp_path: Path) -> None:
    values = yaml.safe_load(BREAST.read_text("utf-8"))
    (regions,) = [rule for rule in values["rules"] if rule["check"] == "regions"]
    regions[key] = "warn"
    assert "scanners write the patient's name" in _bad(tmp_path, yaml.safe_dump(values))


def test_every_problem_is_told_with_its_line(tmp_path: Path) -> None:
    text = BREAST.read_text("utf-8")
    lines = text.splitlines()
    fraction = next(n for n, line in enumerate(lines, start=1) if "conforming:" in line)
    check = next(n for n, line in enumerate(lines, start=1) if "check: calibrated" in line)
    minimum = next(n for n, line in enumerate(lines, start=1) if "min_rows: 128" in line)
    broken = text.replace("conforming: 0.8", "conforming: 1.8").replace("check: calibrated", "check: callibrated")
    told = _bad(tmp_path, broken.replace("min_rows: 128", "min_rows: many"))
    assert "3 problem(s)" in told
    assert f"line {fraction}: join.conforming" in told
    assert f"line {minimum}: rules.12.min_rows" in told
    assert any(f"line {line}: rules.11" in told for line in (check - 1, check)), told


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("organ: breast\n", "", "organ: Field required"),
        ("  - id: no-thumbnail", "  - id: modality", "same id: modality"),
        ("    on_missing: pass\n    remedy: Send the scanner's own images instead of screenshots",
         "    remedy: Send the scanner's own images instead of screenshots", "on_missing: Field required"),
        ("derived: simulated_only", "derived: welcome", "line 6: derived"),
        ("attribute: ImageType[0]", "attribute: image type", "attribute"),
        ("task: breast_ultrasound", "task: breast_ultrasound\nhook: x", "hook"),
        ("task:", "\ttask:", "cannot read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = BREAST.read_text("utf-8")
    assert old in text
    assert says in _bad(tmp_path, text.replace(old, new, 1))


def test_an_empty_file_and_an_absent_one_are_errors_as_well(tmp_path: Path) -> None:
    assert "line 1" in _bad(tmp_path, "")
    with pytest.raises(BadContract, match="cannot read"):
        contracts.read(tmp_path / "absent.yaml")


def test_a_range_must_bound_something(tmp_path: Path) -> None:
    path = Path(contracts.__file__).parent / "pneumonia_xray" / "contract.yaml"
    text = path.read_text("utf-8")
    assert "give min, max or both" in _bad(tmp_path, text.replace("    min: 10\n", "", 1))
    assert "no value can satisfy both" in _bad(tmp_path, text.replace("    min: 10\n", "    min: 10\n    max: 9\n", 1))
