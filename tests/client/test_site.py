"""Settings of a hospital: every problem at once, nothing guessed, real hospitals cannot give up the guarantee."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.errors import SiteMisconfigured
from client.site import Policy, SiteSettings, declared_size, delta_cap, load, secret

EXAMPLE = Path(__file__).parents[2] / "client" / "container" / "site.example.yaml"


def _written(folder: Path, **changes: Any) -> Path:
    """The commented example with some values changed; ``None`` leaves one out, ``policy`` is merged."""
    values = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    values["policy"] |= changes.pop("policy", {})
    values = {key: value for key, value in (values | changes).items() if value is not None}
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(values), "utf-8")
    return path


def test_the_commented_example_is_a_real_hospital_and_says_the_defaults() -> None:
    settings = load(EXAMPLE)
    assert not settings.simulated
    assert settings.policy == Policy(tasks=["breast_ultrasound"])
    plain = SiteSettings(name="x", public_size=200, sources=settings.sources, policy=settings.policy)
    anchored = {name: EXAMPLE.parent / value if isinstance(value, Path) else value for name, value in plain}
    assert dict(settings) == anchored | {"name": settings.name, "sources": settings.sources}


def test_the_commented_example_explains_every_setting() -> None:
    text = EXAMPLE.read_text("utf-8")
    explained = set(re.findall(r"^ *(?:# )?(\w+):", text, flags=re.MULTILINE))
    assert set(SiteSettings.model_fields) | set(Policy.model_fields) <= explained


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    settings = load(_written(tmp_path, ledger="books/ledger.sqlite", withdrawals="gone.csv"))
    assert settings.ledger == tmp_path / "books" / "ledger.sqlite"
    assert settings.withdrawals == tmp_path / "gone.csv"
    assert settings.sources[0].path == Path("/data/dicom")


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    path = _written(tmp_path, name="two words", colour="blue", policy={"max_delta": 2, "tasks": ["astrology"]})
    with pytest.raises(SiteMisconfigured) as caught:
        load(path)
    for part in ("4 problem(s)", "name:", "colour:", "policy.max_delta:", "policy.tasks.0:", "no task 'astrology'"):
        assert part in str(caught.value)


def test_a_real_hospital_cannot_give_up_the_guarantee(tmp_path: Path) -> None:
    lax = {"without_privacy": True, "auto_approve": True, "scores": "exact"}
    (source,) = yaml.safe_load(EXAMPLE.read_text("utf-8"))["sources"]
    capped = {"sources": [source | {"max_training_patients": 10}], "reply_tick_s": 0}
    with pytest.raises(SiteMisconfigured) as caught:
        load(_written(tmp_path, public_size=None, policy=lax, **capped))
    named = ("without_privacy", "auto_approve", "scores: exact", "public_size is missing", "max_training_patients")
    for part in (*named, "reply_tick_s: 0"):
        assert part in str(caught.value)
    assert load(_written(tmp_path, public_size=None, simulated=True, policy=lax, **capped)).policy.auto_approve


@pytest.mark.parametrize(
    ("simulated", "told", "tick"),
    [(False, None, 10.0), (False, 0.5, 0.5), (True, None, 0.0), (True, 0, 0), (True, 3, 3)],
)
def test_replies_leave_at_a_tick_unless_the_hospital_is_simulated(
    tmp_path: Path, simulated: bool, told: float | None, tick: float
) -> None:
    assert load(_written(tmp_path, simulated=simulated, reply_tick_s=told)).tick_s == tick


@pytest.mark.parametrize(("patients", "size"), [(0, 1), (1, 1), (14, 10), (15, 20), (96, 100), (135, 100), (944, 900)])
def test_a_simulated_hospital_declares_its_patients_to_one_digit(tmp_path: Path, patients: int, size: int) -> None:
    assert declared_size(load(_written(tmp_path, simulated=True, public_size=None)), patients) == size
    assert declared_size(load(_written(tmp_path)), patients) == 200


def test_one_study_cannot_be_allowed_more_than_all_together(tmp_path: Path) -> None:
    with pytest.raises(SiteMisconfigured, match="max_epsilon_study=30 is above max_epsilon_life=20"):
        load(_written(tmp_path, policy={"max_epsilon_study": 30.0}))


def test_ledger_and_audit_log_are_not_one_file(tmp_path: Path) -> None:
    with pytest.raises(SiteMisconfigured, match="ledger and audit_log name the same file"):
        load(_written(tmp_path, ledger="books", audit_log="./books"))


@pytest.mark.parametrize("value", [".nan", "-1.0", "0", ".inf"])
def test_an_epsilon_that_is_no_bound_is_refused(tmp_path: Path, value: str) -> None:
    text = _written(tmp_path).read_text("utf-8")
    path = tmp_path / "site.yaml"
    path.write_text(re.sub(r"max_epsilon_life: .*", f"max_epsilon_life: {value}", text), "utf-8")
    with pytest.raises(SiteMisconfigured, match=r"policy\.max_epsilon_life"):
        load(path)


@pytest.mark.parametrize(
    ("content", "says"), [(b"name: [", "cannot read"), (b"\xff\xfe", "cannot read"), (b"", "it holds no settings")]
)
def test_what_is_no_yaml_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(content)
    with pytest.raises(SiteMisconfigured, match=says):
        load(path)


@pytest.mark.parametrize(("size", "cap"), [(200, 1e-4), (1000, 1e-4), (5000, 2e-5), (100_000, 1e-6)])
def test_delta_exposes_at_most_a_tenth_of_a_patient(tmp_path: Path, size: int, cap: float) -> None:
    settings = load(_written(tmp_path, public_size=size))
    assert delta_cap(settings) == pytest.approx(cap)
    assert delta_cap(settings) * size <= 0.1 + 1e-12


def test_the_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    settings = load(_written(tmp_path))
    first = secret(settings)
    assert len(first) == 32
    assert secret(settings) == first
    assert settings.key.stat().st_mode & 0o777 == 0o600
    settings.key.chmod(0o640)
    with pytest.raises(SiteMisconfigured, match="chmod 600"):
        secret(settings)


def test_half_a_secret_is_refused(tmp_path: Path) -> None:
    settings = load(_written(tmp_path))
    descriptor = os.open(settings.key, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, b"short")
    os.close(descriptor)
    with pytest.raises(SiteMisconfigured, match="holds 5 bytes"):
        secret(settings)


def test_a_language_that_nobody_has_translated_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    assert load(_written(tmp_path)).lang == "en"
    assert load(_written(tmp_path, lang="zh")).lang == "zh"
    with pytest.raises(SiteMisconfigured, match="lang: must be 'en', 'zh' or 'de', not 'fr'"):
        load(_written(tmp_path, lang="fr"))
