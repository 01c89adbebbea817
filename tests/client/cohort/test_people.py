"""A patient stays who they are under a new number: pseudonym, side, withdrawal; what is uncertain waits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydicom import dcmread
from typer.testing import CliRunner

from client.cli.main import app
from client.cohort import catalog, people
from client.cohort.intake import patient_under
from client.cohort.people import People
from client.ledger.audit_log import AuditLog, Kind
from client.site import SiteSettings, load, secret
from client.sources.visit import Sighting
from tasks.lung_ct import TASK as LUNG
from tasks.task import PhantomHospital, Task
from tests.client.prediction import handed_over
from tests.client.sources.pacs import dicomweb_server, dimse_server
from tests.drawn import draw

ISSUER = "alder"


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return load(handed_over.provision_hospital(tmp_path, patients=1))


@pytest.fixture
def known(site: SiteSettings) -> Iterator[People]:
    with people.opened(site) as one:
        yield one


def _seen(patient: str, image: str, **more: str) -> Sighting:
    return Sighting(patient, ISSUER, image, **more)


def _on(site: SiteSettings, side: str, number: int = 0) -> str:
    """A PatientID that the key puts on a side."""
    names = (f"P-{n}" for n in range(1000))
    fraction = site.validation_fraction
    return [n for n in names if (patient_under(secret(site), ISSUER, n).position < fraction) == (side != "train")][
        number
    ]


def _journal(site: SiteSettings) -> list[object]:
    with AuditLog.open(site.audit_log, secret(site)) as audit_log:
        return [event.facts["decided"] for event in audit_log.events(Kind.IDENTITY)]


@pytest.mark.parametrize("old", ["train", "validation"])
def test_a_new_number_keeps_the_side(site: SiteSettings, known: People, old: str) -> None:
    new = "validation" if old == "train" else "train"
    first, second = _on(site, old), _on(site, new)
    known.settle([_seen(first, "1.1", study="1"), _seen(first, "1.2", study="1")])
    before = known.person(ISSUER, first)
    known.settle([_seen(second, "1.1"), _seen(second, "1.2")])
    assert known.person(ISSUER, second) == before
    assert known.conflicts() == []
    assert _journal(site) == [people.SAME]
    known.settle([_seen(second, "1.1"), _seen(second, "1.3", study="1")])
    assert _journal(site) == [people.SAME], "once"
    third = _on(site, new, 1)
    known.settle([_seen(third, "1.3")])
    assert known.person(ISSUER, third) == before, "and under a third one, by what came under the second"


def test_an_examination_ties_and_an_accession_only_with_the_person(known: People) -> None:
    facts = {"born": "19500101", "sex": "F"}
    known.settle([_seen("A", "1", study="s", accession="a", **facts)])
    known.settle([_seen("B", "2", study="s")])
    assert known.person(ISSUER, "B") == known.person(ISSUER, "A")
    known.settle([_seen("C", "3", accession="a")])
    assert known.person(ISSUER, "C") != known.person(ISSUER, "A"), "accession numbers are used again"
    known.settle([_seen("D", "4", accession="a", **facts)])
    assert known.person(ISSUER, "D") == known.person(ISSUER, "A")


def test_what_is_uncertain_waits_for_a_person(site: SiteSettings, known: People) -> None:
    train, validation = _on(site, "train"), _on(site, "validation")
    known.settle([_seen(train, "1"), _seen(validation, "2")])
    known.settle([_seen(validation, "1"), _seen(validation, "2")])
    (conflict,) = known.conflicts()
    assert "different sides" in conflict.why
    assert known.left_out() == {known.person(ISSUER, name).pseudonym for name in (train, validation)}
    known.settle([_seen(validation, "1"), _seen(validation, "2")])
    assert len(known.conflicts()) == 1
    assert known.decide(people.SAME, "Dr. A") == 1
    assert known.conflicts() == []
    person = known.person(ISSUER, validation)
    assert person == known.person(ISSUER, train)
    assert person.position >= site.validation_fraction, "whoever was trained on is never scored"


def test_contradicting_facts_and_two_who_are_both_there_are_not_joined(site: SiteSettings, known: People) -> None:
    one, other, third = (_on(site, "train", number) for number in range(3))
    known.settle([_seen(one, "1", born="19500101"), _seen(other, "2"), _seen(other, "3")])
    known.settle([_seen(third, "1", born="19620202")])
    assert "birth date" in known.conflicts()[0].why
    known.settle([_seen(one, "9"), _seen(one, "2"), _seen(other, "3")])
    assert any("both still have images" in conflict.why for conflict in known.conflicts())
    assert known.decide(people.DIFFERENT, "Dr. A") == 2
    assert known.left_out() == set()
    known.settle([_seen(third, "1", born="19620202"), _seen(one, "2"), _seen(other, "3")])
    assert known.conflicts() == [], "what was decided is not asked again"
    assert len({known.person(ISSUER, name).pseudonym for name in (one, other, third)}) == 3


def test_one_examination_of_two_patients_at_once_is_seen_at_once(known: People) -> None:
    known.settle([_seen("A", "1", study="s"), _seen("B", "2", study="s")])
    known.settle([_seen("A", "1", study="s"), _seen("B", "2", study="s")])
    assert len({known.person(ISSUER, name).pseudonym for name in "AB"}) == 1 or known.conflicts()


def test_a_withdrawal_outlives_a_change_of_number(known: People) -> None:
    known.remember([_seen("GONE", "1.1", study="1"), _seen("GONE", "1.2", study="1")])
    persons = known.pseudonyms([ISSUER], ["GONE"])
    assert known.is_one_of(_seen("NEW", "1.1"), persons)
    assert known.is_one_of(_seen("NEW", "7", study="1"), persons)
    assert not known.is_one_of(_seen("NEW", "7"), persons)
    known.settle([_seen("A", "5")])
    known.settle([_seen("B", "5")])
    assert known.person(ISSUER, "B").pseudonym in known.pseudonyms([ISSUER], ["B"])
    assert known.person(ISSUER, "A").pseudonym in known.pseudonyms([ISSUER], ["B"]), "by either number"


def test_a_list_of_merges_ties_before_anything_is_seen(site: SiteSettings, known: People) -> None:
    train, validation = _on(site, "train"), _on(site, "validation")
    known.merge(ISSUER, train, validation)
    assert known.person(ISSUER, validation) == known.person(ISSUER, train)
    known.merge(ISSUER, train, validation)
    assert len(_journal(site)) == 1
    old, seen = _on(site, "validation", 1), _on(site, "train", 1)
    known.settle([_seen(seen, "1")])
    known.merge(ISSUER, old, seen)
    assert known.person(ISSUER, old) == known.person(ISSUER, seen), "who is known keeps the side"
    assert known.person(ISSUER, seen).position >= site.validation_fraction
    both = _on(site, "validation", 2)
    known.settle([_seen(both, "2")])
    known.merge(ISSUER, both, seen)
    assert "different sides" in known.conflicts()[0].why


def test_ties_are_restored_from_the_journal(site: SiteSettings, known: People) -> None:
    first, second = _on(site, "train"), _on(site, "validation")
    known.settle([_seen(first, "1")])
    known.settle([_seen(second, "1")])
    before = known.person(ISSUER, second)
    site.people.unlink()
    with people.opened(site) as restored:
        assert restored.person(ISSUER, second) == before == restored.person(ISSUER, first)


def test_the_file_names_nobody(site: SiteSettings, known: People) -> None:
    known.settle([_seen("PATIENT-77", "1.2.840.77", study="1.2.840.78", accession="ACC-77", born="19770707", sex="F")])
    content = site.people.read_bytes()
    for name in (b"PATIENT-77", b"1.2.840", b"ACC-77", b"19770707"):
        assert name not in content
    assert site.people.stat().st_mode & 0o077 == 0


def test_of_a_simulated_hospital_nothing_is_kept(site: SiteSettings) -> None:
    simulated = site.model_copy(update={"simulated": True})
    with people.opened(simulated) as one:
        one.remember([_seen("A", "1")])
    assert not site.people.exists()


def test_a_folder_whose_patients_get_other_numbers_keeps_sides_and_withdrawals(tmp_path: Path) -> None:
    withdrawals = tmp_path / "withdrawals"
    withdrawals.write_text("", "utf-8")
    site = load(handed_over.provision_hospital(tmp_path, patients=5, withdrawals=str(withdrawals)))
    files: dict[str, list[Path]] = {}
    for path in sorted(site.sources[0].path.rglob("*.dcm")):
        files.setdefault(str(dcmread(path, stop_before_pixels=True).PatientID), []).append(path)
    gone, moved, *_ = files
    withdrawals.write_text(f"{gone}\n", "utf-8")
    before = catalog.ingest(site, handed_over.TASK)
    other = _on(site, "train" if _is_validation(site, moved) else "validation")
    for old, new in ((gone, "NEW"), (moved, other)):
        for path in files[old]:
            dataset = dcmread(path)
            dataset.PatientID = new
            dataset.save_as(path)
    for _ in range(2):
        after = catalog.ingest(site, handed_over.TASK)
        assert (after.images, after.patients) == (before.images, before.patients)
        assert after.left_out["WITHDRAWN"] == before.left_out["WITHDRAWN"] > 0
        shutil.rmtree(site.catalog)
    assert _journal(site) == [people.SAME, people.SAME]


def test_a_number_of_a_list_is_known_under_later_ones(site: SiteSettings, known: People) -> None:
    known.settle([_seen("A", "1", study="s"), _seen("B", "2", study="t")])
    name = known.known_as(ISSUER, ["A", "B"])
    assert [name(_seen("A", "9")), name(_seen("C", "9")), name(_seen("C", "1")), name(_seen("C", "9", study="t"))] == [
        "A", "", "A", "B",
    ]  # fmt: skip
    assert name(_seen("C", "1", study="t")) == "", "of two"
    known.merge(ISSUER, "B", "D")
    assert known.known_as(ISSUER, ["A", "B"])(_seen("D", "9")) == "B"
    assert known.known_as("other", ["A"])(_seen("C", "1")) == ""


def test_who_was_said_to_be_somebody_else_has_no_label_of_the_other(site: SiteSettings, known: People) -> None:
    known.settle([_seen("A", "1", born="19500101"), _seen("B", "2", born="19600202")])
    known.settle([_seen("B", "1", born="19600202")])
    assert len(known.conflicts()) == 1
    assert known.known_as(ISSUER, ["A"])(_seen("B", "1")) == "", "nobody has decided"
    known.decide(people.DIFFERENT, "Dr. A")
    assert known.known_as(ISSUER, ["A"])(_seen("B", "1")) == ""


@pytest.mark.parametrize(
    ("task", "way"),
    [
        *((handed_over.TASK, way) for way in ("folder", "dicomweb", "dimse")),
        *((LUNG, way) for way in ("folder", "dicomweb")),  # a scan's slices one by one by DIMSE are half a minute
    ],
    ids=lambda one: str(getattr(one, "name", one)),
)
def test_labels_by_patient_and_sides_follow_new_numbers(tmp_path: Path, task: Task, way: str) -> None:
    """Pictures and volumes: a patient is renamed, the labels file is not."""
    with _hospital_of(tmp_path, task, way) as (site, files):
        before = catalog.ingest(site, task)
        moved = next(iter(files))
        other = _on(site, "train" if _is_validation(site, moved) else "validation")
        for path in files[moved]:
            dataset = dcmread(path)
            dataset.PatientID = other
            dataset.save_as(path)
        after = catalog.ingest(site, task)
        assert (after.images, after.patients, after.left_out) == (before.images, before.patients, before.left_out)
        assert _journal(site) == [people.SAME]


@contextmanager
def _hospital_of(folder: Path, task: Task, way: str) -> Iterator[tuple[SiteSettings, dict[str, list[Path]]]]:
    """A hospital with labels by PatientID, its files in a folder or an archive on loopback."""
    file = handed_over.provision_hospital(folder, patients=1)
    shutil.rmtree(folder / "dicom")
    draw(task, folder, PhantomHospital(ISSUER, 4, prevalence=0.5), 0)
    files: dict[str, list[Path]] = {}
    for path in sorted((folder / "dicom").rglob("*.dcm")):
        files.setdefault(str(dcmread(path, stop_before_pixels=True).PatientID), []).append(path)
    rows = [f"{name},{number % 2}" for number, name in enumerate(files)]
    (folder / "labels.csv").write_text("\n".join(["PatientID,label", *rows, ""]), "utf-8")
    archived = [path for paths in files.values() for path in paths]
    with ExitStack() as stack:
        where: dict[str, object] = {"kind": way, "path": str(folder / "dicom")}
        if way != "folder":
            scope = {"modalities": ["US", "CT", "SEG"]}
            where |= {"path": str(folder / "spool"), "scope": scope, "attempts": 2, "first_wait_seconds": 0.01}
        if way == "dicomweb":
            service = stack.enter_context(dicomweb_server.running(dicomweb_server.Service(archived)))
            where["url"] = service.url
        if way == "dimse":
            provider = stack.enter_context(dimse_server.running(dimse_server.Provider(archived)))
            where |= {"host": "127.0.0.1", "port": provider.port, "called_ae": "ARCHIVE"}
        source = where | {"task": task.name, "issuer": ISSUER, "labels": str(folder / "labels.csv")}
        values = yaml.safe_load(file.read_text("utf-8"))
        policy = values["policy"] | {"tasks": [task.name]}
        file.write_text(yaml.safe_dump(values | {"sources": [source], "policy": policy}), "utf-8")
        yield load(file), files


def _is_validation(site: SiteSettings, patient: str) -> bool:
    return patient_under(secret(site), ISSUER, patient).position < site.validation_fraction


def test_the_command_shows_and_decides(site: SiteSettings, known: People) -> None:
    train, validation = _on(site, "train"), _on(site, "validation")
    known.settle([_seen(train, "1"), _seen(validation, "2")])
    known.settle([_seen(validation, "1"), _seen(validation, "2")])
    file = ["--site", str(site.key.parent / "site.yaml")]
    runner = CliRunner()
    assert runner.invoke(app, ["identities", *file]).exit_code == 1
    assert runner.invoke(app, ["identities", "--same", "--sign", *file]).exit_code == 2
    assert runner.invoke(app, ["identities", "--same", "--by", "Dr. A", *file]).exit_code == 0
    assert runner.invoke(app, ["identities", *file]).exit_code == 0
    assert replace(known.person(ISSUER, validation)) == known.person(ISSUER, train)
