"""What people decide, across real processes: a study approved and an approval taken back, a hospital or a researcher
shut out, and what the security officer is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from server.cli import people
from server.errors import NotAdmitted
from tests.e2e.deployment.federation import Federation, federation, server_command, site_command, told, until
from tests.e2e.deployment.ledger_rows import problems_in_records


@pytest.fixture(scope="module")
def asking(packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two hospitals where a person has to approve every study."""
    with federation(tmp_path_factory.mktemp("people"), rounds=3) as made:
        for hospital in made.hospitals:
            values = yaml.safe_load(hospital.site.read_text("utf-8"))
            values["policy"]["auto_approve"] = False
            hospital.site.write_text(yaml.safe_dump(values), "utf-8")
        yield made


def test_a_study_runs_once_a_person_at_each_hospital_has_approved_it(asking: Federation, tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    told(asking.study_words(f"propose={file}"))

    told(asking.study_words(), code=1)
    facts = asking.facts()
    assert facts["state"] == "failed"
    assert all(hospital.name in facts["error"] for hospital in asking.hospitals)
    assert "NOT_APPROVED" in facts["error"]
    assert asking.rounds() == []

    waiting = json.loads(told(site_command("review", "--site", asking.hospitals[0].site, "--json")))
    assert len(waiting) == 1, "what was refused waits for review"
    for hospital in asking.hospitals:  # both keep what waits in one folder, for their audit logs lie in one
        assert "epsilon" in told(site_command("review", file, "--site", hospital.site))
        again = json.loads(told(site_command("review", "--site", hospital.site, "--json")))
        assert again == waiting, "it is the very study that was proposed"
        told(
            site_command(
                "approve",
                waiting[0]["digest"][:12],
                "--by",
                "Dr. A. Example",
                "--uninformative",
                "--site",
                hospital.site,
            )
        )

    told(asking.study_words())
    assert asking.facts()["study"] == facts["study"]
    assert asking.facts()["state"] == "finished"
    assert len(asking.rounds()) == 3
    assert all(problems_in_records(hospital) == [] for hospital in asking.hospitals)


def test_after_an_approval_is_taken_back_nothing_leaves_and_the_others_go_on(
    asking: Federation, tmp_path: Path
) -> None:
    words, file = ("seed=11", "federation.rounds=8"), tmp_path / "long.json"
    told(asking.study_words(*words, f"propose={file}"))
    birch = asking.hospitals[1]
    for hospital in asking.hospitals:
        told(site_command("review", file, "--site", hospital.site))
        digest = json.loads(told(site_command("review", "--site", hospital.site, "--json")))[0]["digest"]
        told(site_command("approve", digest, "--by", "Dr. A. Example", "--uninformative", "--site", hospital.site))
    running = asking.study(*words)
    until(lambda: len(asking.rounds()) >= 1, 240, "a round is committed")
    told(site_command("revoke", digest[:12], "--by", "Dr. B. Example", "--site", birch.site))
    seen = len(asking.rounds())
    assert running.wait(600) == 0

    rounds, study = asking.rounds(), asking.facts()["study"]
    assert [one["number"] for one in rounds] == list(range(1, 9))
    without = [one for one in rounds if "train: refused with NOT_APPROVED" in one["dropped"].get("birch", "")]
    assert len(without) >= 8 - seen - 1, "at most the round that was under way still had it"
    found = json.loads(
        told(site_command("audit", "--kind", "receipt", "--study", study, "--site", birch.site, "--json"))
    )
    trained = [one["round"] for one in found if one["message"] == "TrainReport"]
    assert trained == list(range(1, 9 - len(without)))
    assert all(problems_in_records(hospital) == [] for hospital in asking.hospitals)


def test_both_sides_show_their_security_officers_that_nothing_fails(asking: Federation, tmp_path: Path) -> None:
    for hospital in asking.hospitals:
        page = tmp_path / f"{hospital.name}.html"
        words = ("security", "--site", hospital.site, "--gateway", hospital.gateway, "--html", page, "--json")
        found = json.loads(told(site_command(*words)))
        states = {one["promise"]: one["state"] for claims in found.values() for one in claims}
        assert states["The trainer connects to the gateway and your archives and nothing else"] == "ok"
        assert states["The gateway connects to the server or your proxy and nothing else"] == "ok"
        assert states["The trainer listens nowhere"] == "ok"
        assert states[f"The gateway listens at {hospital.gateway} only"] == "ok"
        assert states["The server is authenticated, and all traffic is encrypted"] == "ok"
        assert states["Every message that left has a receipt, and ledger and audit log are intact"] == "ok"
        assert (
            "2 approved, by Dr. A. Example" in page.read_text() or "1 approved, by Dr. A. Example" in page.read_text()
        )
    found = json.loads(told(server_command("security", "--home", asking.home, "--json")))
    states = {one["promise"]: one["state"] for claims in found.values() for one in claims}
    assert states[f"The SuperLink listens at 127.0.0.1:{asking.superlink_port} only"] == "ok"
    assert states["The reverse proxy lets through what is listed and nothing else"] == "ok"


def test_a_hospital_that_was_shut_out_comes_back_with_a_new_key_only(asking: Federation) -> None:
    birch = asking.hospitals[1]
    people.revoke("birch", home=asking.home)
    until(lambda: set(asking.status()["hospitals"]) == {"alder"}, 60, "the server has forgotten birch")
    alder = asking.hospitals[0]
    values = yaml.safe_load(alder.site.read_text("utf-8"))
    values["policy"]["auto_approve"] = True
    alder.site.write_text(yaml.safe_dump(values), "utf-8")
    told(asking.study_words("seed=12"))
    assert [sorted(one["hospitals"]) for one in asking.rounds()] == [["alder"]] * 3
    birch.stop()
    with pytest.raises(NotAdmitted, match="accepts none twice"):
        people.admit(asking.folder / "birch.request.json", home=asking.home)
    (birch.link / "node.key").unlink()
    asking.enroll(birch)
    birch.start()
    until(lambda: asking.status()["hospitals"].get("birch", {}).get("state") == "online", 180, "birch is back")


def test_a_researcher_who_was_shut_out_is_refused_at_the_door(asking: Federation) -> None:
    asking.researcher("mallory")
    people.revoke("mallory", home=asking.home)
    words = asking.study_words("seed=13")
    revoked = asking.home / "researchers" / "mallory.revoked"
    words = [f"runtime.certificate={revoked}" if word.startswith("runtime.certificate=") else word for word in words]
    before = asking.facts()
    told(words, code=1)
    assert asking.facts() == before
