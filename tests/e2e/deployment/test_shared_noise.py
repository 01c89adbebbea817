"""Hospitals that share the noise, as real processes over TLS: enrolled and pinned keys sign the sum keys."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from client.ledger.records import open_records
from client.site import load, secret
from tasks.protocol import enrolment
from tests.e2e.deployment.federation import CALM, SMALL, Federation, Hospital, federation, site_command, told, until
from tests.e2e.deployment.ledger_rows import problems_in_records

STEPS = 50
WORDS = ("privacy=shared_noise", "training.steps=1", "training.sample_rate=1.0", "evaluation.every=100")


def pin(made: Federation) -> None:
    """Each hospital lists the others' fingerprints, as their staff have read them out, and signs its new caps."""
    keys = {one.name: enrolment.own_fingerprint((one.link / "node.key").read_bytes()) for one in made.hospitals}
    for hospital in made.hospitals:
        values = yaml.safe_load(hospital.site.read_text("utf-8"))
        others = [fingerprint for name, fingerprint in keys.items() if name != hospital.name]
        caps = {"max_epsilon_alone": 10_000.0, "max_epsilon_alone_life": 100_000.0}
        values["policy"]["secure_sum"] = {"peers": others, **caps}
        hospital.site.write_text(yaml.safe_dump(values), "utf-8")
        told(site_command("ledger", "rebase", "--yes", "--by", "the tests", "--site", hospital.site))


@pytest.fixture(scope="module")
def four(packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with federation(tmp_path_factory.mktemp("federation"), hospitals=4, rounds=STEPS, settings=SMALL) as made:
        pin(made)
        yield made


def tags(hospital: Hospital, study: str) -> list[tuple[int, int]]:
    """Round and attempt of every training reservation."""
    settings = load(hospital.site)
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        uses = [entry.use for entry in records.ledger.entries()]
    return [(use.round, use.attempt) for use in uses if (use.study, use.cohort) == (study, "train")]


def test_fifty_steps_of_four_hospitals(four: Federation) -> None:
    began = time.monotonic()
    words = four.study_words(*WORDS)
    ended = subprocess.run(words, capture_output=True, text=True, env=os.environ | CALM, timeout=1500)
    seconds = time.monotonic() - began
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rounds = four.rounds()
    print(
        f"{STEPS} steps: {seconds:.0f} s from the command on, {sum(one['seconds'] for one in rounds):.0f} s in rounds"
    )
    assert [one["number"] for one in rounds] == list(range(1, STEPS + 1))
    assert not any(one["void"] for one in rounds)
    assert "share the noise of steps" in (four.newest() or Path()).joinpath("model-card.md").read_text("utf-8")
    for hospital in four.hospitals:
        assert problems_in_records(hospital) == []
        assert tags(hospital, str(four.facts()["study"])) == [(step, 1) for step in range(1, STEPS + 1)]


def test_twenty_kills_on_both_sides(four: Federation) -> None:
    """Trainers, gateways, the SuperLink and the study's own process; each comes back by itself."""
    rng, before = random.Random(5), four.facts().get("study")
    four_words = ("privacy.spare=3", "seed=11", "federation.deadline_s=60", "runtime.follow=false")
    told(four.study_words(*WORDS, *four_words))
    until(lambda: four.facts().get("study") not in (None, before) and four.rounds(), 300, "the study is under way")
    killed = Counter[str]()
    for _ in range(20):
        if four.facts().get("state") == "finished":
            break
        hospital = rng.choice(four.hospitals)
        what = rng.choice(("trainer", "trainer", "gateway", "superlink"))
        pid = four.pid("superlink") if what == "superlink" else hospital.pid(what)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            killed[what] += 1
        time.sleep(rng.uniform(2, 8))
    until(lambda: four.facts().get("state") in ("finished", "failed"), 1500, "the study ends")
    print(f"killed: {dict(killed)}, void attempts: {sum(len(one['void']) for one in four.rounds())}")
    assert four.facts()["state"] == "finished", four.facts().get("error")
    for hospital in four.hospitals:
        assert problems_in_records(hospital) == []
        used = tags(hospital, str(four.facts()["study"]))
        assert len(used) == len(set(used)), "a tag was reserved twice"
