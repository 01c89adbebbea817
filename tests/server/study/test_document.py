"""A study's folder: found again by its configuration, and worked on by one process at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from conf import load
from conf.schema.study import Study
from server.errors import CheckpointDamaged, StudyBusy
from server.run_study import initial_state
from server.study.document import digest, document_of, open_study
from server.study.folder import locked
from tasks.protocol import study as documents


def configuration(folder: Path, *overrides: str) -> Study:
    return replace(loaded(*overrides), output_dir=str(folder))


@cache
def loaded(*overrides: str) -> Study:
    return load.load(["experiment=demo", *overrides])


@pytest.mark.parametrize("name", sorted(path.stem for path in (load.FOLDER / "experiment").glob("*.yaml")))
def test_every_experiment_has_a_network_that_fits_its_task(name: str) -> None:
    """And a document that hospitals can read. ``tests/conf`` says that it composes."""
    door = ("address=server:8444", "authority=authority.crt", "certificate=me.pem")
    more = [f"runtime.{each}" for each in door] if name == "deployed" else []
    study = load.load([f"experiment={name}", "data_root=somewhere", "archive=somewhere/pathmnist.npz", *more])
    assert initial_state(study).weights
    names = [f"hospital-{number}" for number in range(4)] if study.privacy.noise == "shared" else []
    peers = {name: " ".join([f"{number:04x}"] * 8) for number, name in enumerate(names)}
    document = document_of(study, "experiment-1", dict.fromkeys(names, 90), peers=peers)
    assert (document.secure_sum is not None) == bool(names)
    assert (document.task, document.model["name"]) == (study.task.name, study.model.name)


def test_an_unfinished_study_of_the_same_configuration_goes_on(tmp_path: Path) -> None:
    first = open_study(configuration(tmp_path))
    again = open_study(configuration(tmp_path))
    assert (first.resumed, again.resumed) == (False, True)
    assert (first.name, first.path) == (again.name, again.path)


@pytest.mark.parametrize("override", ["runtime=local_processes", "tracking=none"])
def test_where_a_study_runs_may_change(tmp_path: Path, override: str) -> None:
    first = open_study(configuration(tmp_path))
    assert open_study(configuration(tmp_path, override)).name == first.name


@pytest.mark.parametrize(
    "override",
    ["seed=2", "training.steps=77", "privacy.epsilon=7", "privacy=none", "federation.rounds=3", "model.J=2",
     "federation.hospitals.alder.patients=9", "evaluation.bins=16", "federation.quorum=1"],
)  # fmt: skip
def test_what_a_study_computes_may_not(tmp_path: Path, override: str) -> None:
    first = open_study(configuration(tmp_path))
    other = open_study(configuration(tmp_path, override))
    assert not other.resumed
    assert other.path != first.path
    assert digest(configuration(tmp_path)) != digest(configuration(tmp_path, override))


def test_resume_never_starts_anew(tmp_path: Path) -> None:
    first = open_study(configuration(tmp_path))
    second = open_study(configuration(tmp_path, "resume=never"))
    assert not second.resumed
    assert second.name == first.name.removesuffix("-1") + "-2"
    # and from then on auto means the newest
    assert open_study(configuration(tmp_path)).name == second.name


def test_a_finished_study_is_not_gone_on_with(tmp_path: Path) -> None:
    first = open_study(configuration(tmp_path))
    first.note(finished=True)
    second = open_study(configuration(tmp_path))
    assert not second.resumed
    assert second.name != first.name


def test_a_tenth_study_follows_the_ninth(tmp_path: Path) -> None:
    asked = configuration(tmp_path, "resume=never")
    names = [open_study(asked).name for _ in range(11)]
    assert [int(name.rsplit("-", 1)[1]) for name in names] == list(range(1, 12))


def test_a_folder_that_was_killed_before_it_had_facts_is_passed_over(tmp_path: Path) -> None:
    first = open_study(configuration(tmp_path))
    (first.path / "study.json").unlink()
    second = open_study(configuration(tmp_path))
    assert not second.resumed
    assert second.name != first.name


def test_a_copy_that_somebody_made_does_not_confuse(tmp_path: Path) -> None:
    first = open_study(configuration(tmp_path))
    (first.path.parent / f"{first.name}-backup").mkdir()
    (first.path.parent / f"{first.name.removesuffix('-1')}-old").mkdir()
    assert open_study(configuration(tmp_path)).name == first.name


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"finished": false}'])
def test_damaged_facts_are_named(tmp_path: Path, text: str) -> None:
    first = open_study(configuration(tmp_path))
    (first.path / "study.json").write_text(text)
    with pytest.raises(CheckpointDamaged, match=r"study\.json"):
        open_study(configuration(tmp_path))


def test_notes_add_up(tmp_path: Path) -> None:
    folder = open_study(configuration(tmp_path))
    folder.note(one=1)
    folder.note(two=2, one=3)
    facts = folder.facts()
    assert (facts["one"], facts["two"], facts["finished"], facts["study"]) == (3, 2, False, folder.name)
    assert facts["config"] == load.to_plain(configuration(tmp_path))


HOLDER = """
import sys
from pathlib import Path
from server.study.folder import StudyFolder, locked
with locked(StudyFolder("x", Path(sys.argv[1]), False)):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_to_wait_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    folder = open_study(configuration(tmp_path))
    command = [sys.executable, "-c", HOLDER, str(folder.path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(StudyBusy, match=folder.name), locked(folder):
            pytest.fail("two processes have the lock")
    finally:
        holder.kill()
        holder.communicate()
    with locked(folder):
        pass


def test_the_document_says_what_the_configuration_says(tmp_path: Path) -> None:
    asked = configuration(
        tmp_path, "federation.rounds=5", "evaluation.every=2", "evaluation.epsilon=3", "evaluation.bins=16"
    )
    document = document_of(asked, "demo-1", {"ash": 90})
    assert document.rounds == 5
    assert document.evaluation.releases == 3  # after rounds 2, 4 and 5
    assert document.training.steps == asked.training.steps
    assert document.privacy.epsilon == asked.privacy.epsilon
    assert document.model["name"] == asked.model.name
    assert documents.read(documents.canonical(document)) == document
    assert documents.digest(document) != documents.digest(document_of(replace(asked, seed=2), "demo-2", {"ash": 90}))


def test_the_facts_are_json_without_surprises(tmp_path: Path) -> None:
    folder = open_study(configuration(tmp_path))
    json.loads((folder.path / "study.json").read_text(), parse_constant=pytest.fail)
