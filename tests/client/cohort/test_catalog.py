"""The catalog: incremental, resumable, within the contract, forgetful of who has withdrawn; it names nobody."""

from __future__ import annotations

import csv
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from client.cohort import intake
from client.cohort.cache import load_example
from client.cohort.catalog import entries, honour_withdrawals, ingest, require_contract
from client.cohort.dataset import open_cohort
from client.cohort.enough import require_enough
from client.cohort.preparation import Decoding, blacked_out
from client.errors import CacheDamaged, CacheFull, CatalogStale, ContractNotMet, EmptySource, SiteMisconfigured
from client.ledger.audit_log import AuditLog, Kind
from client.reading.segments import is_segmentation
from client.site import SiteSettings, secret
from tasks import contract as contracts
from tasks import task as tasks
from tasks.breast_ultrasound import TASK
from tasks.models import registry
from tasks.task import PhantomHospital, Picture
from tests.drawn import draw

MODEL = {"name": "scatter_linear", "resolution": 16, "J": 2, "L": 2, "pool": 2}
Provision = Callable[..., SiteSettings]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    draw(TASK, folder, PhantomHospital("alder", 14, prevalence=0.5, images_per_patient=(1, 2)), 5)
    return folder


@pytest.fixture
def images(drawn: Path, tmp_path: Path) -> Path:
    """A hospital's folder that a test may change."""
    shutil.copytree(drawn, tmp_path / "hospital")
    (tmp_path / "site.key").touch(0o600)
    (tmp_path / "site.key").write_bytes(b"k" * 32)  # a fixed split: no test hangs on luck
    return tmp_path / "hospital"


@pytest.fixture
def site(images: Path, provision_hospital: Provision) -> SiteSettings:
    return provision_hospital(sources=[_source(images)], policy={"min_patients": 1})


def _source(images: Path, **more: Any) -> dict[str, Any]:
    paths = {"path": str(images / "dicom"), "labels": str(images / "labels.csv")}
    return {"kind": "folder", "task": TASK.name, "issuer": "alder"} | paths | more


def _files(images: Path) -> list[Path]:
    """The images, without the outlines beside them."""
    files = sorted((images / "dicom").rglob("*.dcm"))
    return [path for path in files if not is_segmentation(dcmread(path, stop_before_pixels=True))]


def _edit(path: Path, **changes: Any) -> None:
    dataset = dcmread(path)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def _examples(site: SiteSettings) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (site.catalog / "examples").rglob("*") if path.is_file()}


def _open(site: SiteSettings, side: str = "train") -> int:
    network = registry.build(MODEL, TASK.form)
    return len(open_cohort(site, TASK, side, MODEL, network).rows)


def test_everything_that_keeps_the_contract_is_taken_in(site: SiteSettings, images: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    report = ingest(site, TASK, lambda issuer, done, total: seen.append((issuer, done, total)))
    number = len(_files(images))
    assert report.images == report.contract.examined == report.contract.conforming == number
    assert sum(report.patients.values()) == 14
    assert sum(report.classes.values()) == 14
    assert report.outlined == 14
    assert ingest(site, TASK).outlined == 14, "also when nothing is read again"
    assert seen[-1] == ("alder", number, number)
    assert report.contract.warned == {"matrix": number}, "phantoms are smaller than real images"
    sides = {side: {entry.patient for entry in entries(site, TASK, side)} for side in ("train", "validation")}
    assert {side: len(patients) for side, patients in sides.items()} == report.patients
    assert not sides["train"] & sides["validation"]
    example = load_example(entries(site, TASK, "train")[0].example)
    assert example.shape == TASK.example_shape
    assert example.dtype == np.float32


def test_what_is_known_of_further_findings_is_counted(provision_hospital: Provision, tmp_path: Path) -> None:
    lung = tasks.get("lung_ultrasound")
    draw(lung, tmp_path / "lung", PhantomHospital("alder", 8, prevalence=0.5, images_per_patient=(1, 1)), 3)
    folder, labels = tmp_path / "lung" / "dicom", tmp_path / "lung" / "labels.csv"
    source = {"kind": "folder", "task": lung.name, "issuer": "alder", "path": str(folder), "labels": str(labels)}
    site = provision_hospital(sources=[source], policy={"min_patients": 1, "tasks": [lung.name]})
    report = ingest(site, lung)
    with labels.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    told = {f.name: [row[f.name] for row in rows if row.get(f.name)] for f in lung.secondary_findings}
    assert {name: known for name, (known, _) in report.findings.items()} == {n: len(v) for n, v in told.items()}
    assert {name: having for name, (_, having) in report.findings.items()} == {
        name: sum(value in ("1", "present") for value in values) for name, values in told.items()
    }
    assert report.outlined == 0


def test_a_second_ingest_decodes_nothing(site: SiteSettings) -> None:
    first = ingest(site, TASK)
    before = _examples(site)
    with Decoding() as decoding:
        assert ingest(site, TASK, decoding=decoding) == first
        assert decoding.workers == 0
    assert _examples(site) == before


def test_changes_and_losses_are_followed(site: SiteSettings, images: Path) -> None:
    ingest(site, TASK)
    before = _examples(site)
    changed, gone = _files(images)[0], _files(images)[1]
    _edit(changed, StationName="another")
    gone.unlink()
    report = ingest(site, TASK)
    after = _examples(site)
    assert report.images == len(before) - 1
    assert report.left_out["LABEL_WITHOUT_IMAGE"] == 1
    assert len(after.keys() - before.keys()) == 1, "the changed file is read again"
    assert len(before.keys() - after.keys()) == 2, "what is gone, and what was changed, is deleted"


def test_what_was_read_before_an_interrupt_is_kept(site: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_AT_ONCE", 4)

    def stop(issuer: str, done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(site, TASK, stop)
    with sqlite3.connect(site.catalog / "index.sqlite") as index:
        assert index.execute("SELECT COUNT(*) FROM images").fetchone() == (8,)
    before = _examples(site)
    with pytest.raises(CatalogStale, match="consilium-site ingest"):
        require_contract(site, TASK)
    seen: list[int] = []
    ingest(site, TASK, lambda issuer, done, total: seen.append(done))
    assert seen[0] == 8
    after = _examples(site)
    assert len(before.items() & after.items()) >= 8
    left = next(iter(after))
    orphan = left.with_name(f"{'0' * 64}.safetensors")
    orphan.write_bytes(left.read_bytes())
    ingest(site, TASK)
    assert orphan.exists(), "it may belong to an ingest that is under way"
    os.utime(orphan, (0, 0))
    ingest(site, TASK)
    assert _examples(site) == after


def test_an_example_that_was_cut_short_is_made_again_and_a_damaged_one_is_named(site: SiteSettings) -> None:
    ingest(site, TASK)
    path = entries(site, TASK, "train")[0].example
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    ingest(site, TASK)
    assert path.read_bytes() == whole
    path.write_bytes(b"\xff" * len(whole))
    with pytest.raises(CacheDamaged, match="consilium-site ingest"):
        load_example(path)


def test_unreadable_files_are_counted_and_tried_once(site: SiteSettings, images: Path) -> None:
    victim = _files(images)[0]
    victim.write_bytes(victim.read_bytes()[:-2000])
    assert ingest(site, TASK).left_out == {"TRUNCATED": 1}
    with Decoding() as decoding:
        report = ingest(site, TASK, decoding=decoding)
        assert report.left_out == {"TRUNCATED": 1}
        assert report.contract.conforming == report.contract.examined - 1
        assert decoding.workers == 0


def test_an_unreadable_file_that_was_put_right_is_taken_in(site: SiteSettings, images: Path) -> None:
    victim = _files(images)[0]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-2000])
    assert ingest(site, TASK).left_out == {"TRUNCATED": 1}
    victim.write_bytes(whole)
    report = ingest(site, TASK)
    assert report.left_out == {}
    assert report.contract.conforming == report.contract.examined


def test_images_that_break_the_contract_are_left_out_by_their_first_rule(site: SiteSettings, images: Path) -> None:
    for path in _files(images)[:2]:
        _edit(path, LossyImageCompression="01", BodyPartExamined="THYROID")
    _edit(_files(images)[2], BodyPartExamined="THYROID")
    report = ingest(site, TASK)
    assert report.left_out == {"RULE:no-lossy-history": 2, "RULE:organ": 1}
    assert report.contract.every == {"no-lossy-history": 2, "organ": 3}
    assert len(_examples(site)) == report.images == len(_files(images)) - 3
    require_contract(site, TASK)


def test_a_hospital_below_the_fraction_does_not_take_part(site: SiteSettings, images: Path) -> None:
    files = _files(images)
    for path in files[: len(files) // 3]:
        _edit(path, Modality="OT")
    report = ingest(site, TASK)
    assert any("most frequent failure: 'modality'" in warning for warning in report.warnings)
    with pytest.raises(ContractNotMet, match="80% are required"):
        require_enough(site, TASK)
    assert _open(site) > 0, "an order is answered all the same: its answer must not tell how many images there are"
    for path in files:
        _edit(path, Modality="OT")
    with pytest.raises(ContractNotMet, match=f"RULE:modality {len(files)}"):
        ingest(site, TASK)


def test_a_hospital_that_labels_little_does_not_take_part(site: SiteSettings, images: Path) -> None:
    labels = images / "labels.csv"
    rows = labels.read_text("utf-8").splitlines()
    labels.write_text("\n".join(rows[: len(rows) // 3]), "utf-8")
    report = ingest(site, TASK)
    assert report.contract.unlabelled > report.images
    with pytest.raises(ContractNotMet, match="have a label, 50% are required"):
        require_contract(site, TASK)


def test_another_contract_is_judged_without_decoding(site: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(site, TASK)
    values = contracts.of_task(TASK.name).model_dump()
    with sqlite3.connect(site.catalog / "index.sqlite") as index:
        index.execute("UPDATE images SET jpeg = 0.5 WHERE image IN (SELECT image FROM images LIMIT 3)")
    values["rules"] = [rule | ({"below": 0.45} if rule["check"] == "no_jpeg_grid" else {}) for rule in values["rules"]]
    stricter = contracts.Contract.model_validate(values)
    monkeypatch.setattr(contracts, "of_task", lambda name: stricter)
    monkeypatch.setattr(contracts, "digest_of_task", lambda name: contracts.digest(stricter))
    with pytest.raises(CatalogStale, match="under a contract other than this release"):
        require_contract(site, TASK)
    with Decoding() as decoding:
        report = ingest(site, TASK, decoding=decoding)
        assert decoding.workers == 0
    assert report.contract.first == {"no-jpeg-trace": 3}
    assert report.images == report.contract.examined - 3


def test_withdrawal_counts_from_the_next_round_on(images: Path, provision_hospital: Provision, tmp_path: Path) -> None:
    list_of_names = tmp_path / "withdrawals.txt"
    list_of_names.write_text("", "utf-8")
    site = provision_hospital(sources=[_source(images)], policy={"min_patients": 1}, withdrawals=str(list_of_names))
    ingest(site, TASK)
    training, files, computed = _open(site), len(_examples(site)), site.catalog / "inputs"
    assert list(computed.iterdir())
    leaving = _one_training_patient(site, images)
    own = len([path for path in _files(images) if path.parent.name == leaving])
    list_of_names.write_text(f"{leaving}\nNOBODY-1\n", "utf-8")
    assert _open(site) == training - 1
    assert len(_examples(site)) == files - own
    with AuditLog.open(site.audit_log, secret(site)) as audit_log:
        events = audit_log.events(Kind.WITHDRAWAL)
    assert [event.facts for event in events] == [{"patients": 1, "images": own}]
    assert honour_withdrawals(site) == 0, "told once"
    assert ingest(site, TASK).left_out["WITHDRAWN"] == own
    list_of_names.unlink()
    with pytest.raises(Exception, match="the withdrawal list cannot be used"):
        _open(site)


def _one_training_patient(site: SiteSettings, images: Path) -> str:
    key = secret(site)
    for folder in sorted((images / "dicom").iterdir()):
        if int(intake.keyed(key, "split", "alder", folder.name)[:13], 16) / 16**13 >= site.validation_fraction:
            return folder.name
    raise AssertionError("nobody is trained on")


def test_the_catalog_names_nobody(site: SiteSettings, images: Path) -> None:
    ingest(site, TASK)
    secrets = set()
    for path in _files(images):
        header = dcmread(path, stop_before_pixels=True)
        secrets |= {str(path), header.PatientID, str(header.PatientName), header.SOPInstanceUID, header.AccessionNumber}
    for file in (path for path in site.catalog.rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert not [name for name in secrets if name.encode() in content], file
        assert not [name for name in secrets if name in str(file.relative_to(site.catalog))]


def test_the_same_image_under_two_patients_is_flagged(site: SiteSettings, images: Path) -> None:
    one, *_, other = sorted((images / "dicom").iterdir())
    source, target = sorted(one.iterdir())[0], sorted(other.iterdir())[0]
    _edit(target, PixelData=dcmread(source).PixelData)
    report = ingest(site, TASK)
    assert report.near_duplicates.pairs == 1
    assert report.near_duplicates.complete
    assert any("look the same" in warning for warning in report.warnings)


def test_what_does_not_fit_is_an_error_and_what_was_read_stays(images: Path, provision_hospital: Provision) -> None:
    site = provision_hospital(sources=[_source(images)], max_cache_gigabytes=6 * 65_700 / 1e9)
    with pytest.raises(CacheFull, match="max_cache_gigabytes"):
        ingest(site, TASK)
    assert 1 <= len(_examples(site)) <= 6


def _manifest(folder: Path) -> dict[str, Any]:
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (140, 140), dtype=np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,p{number},{number % 2}")
    (folder / "manifest.csv").write_text("\n".join(["file,patient_id,label", *rows]), "utf-8")
    return {"kind": "manifest", "task": TASK.name, "issuer": "public", "path": str(folder)}


def test_derived_images_are_for_simulated_hospitals_only(tmp_path: Path, provision_hospital: Provision) -> None:
    source = _manifest(tmp_path / "public")
    with pytest.raises(ContractNotMet, match=r"manifest hold images derived.*simulated: true"):
        ingest(provision_hospital(sources=[source]), TASK)
    (tmp_path / "site.yaml").unlink()
    report = ingest(provision_hospital(sources=[source], simulated=True), TASK)
    assert (report.images, report.contract.derived, report.contract.examined) == (8, 8, 0)


def test_a_published_split_places_patients_and_never_moves_one(tmp_path: Path, provision_hospital: Provision) -> None:
    source = _manifest(tmp_path / "public")
    manifest = tmp_path / "public" / "manifest.csv"
    plain = manifest.read_text("utf-8")
    parts = ["train", "train", "train", "train", "train", "val", "val", "test"]
    lines = [f"{line},{part}" for line, part in zip(plain.splitlines(), ["part", *parts], strict=True)]
    manifest.write_text("\n".join(lines), "utf-8")
    site = provision_hospital(sources=[source | {"split_column": "part"}], simulated=True)
    report = ingest(site, TASK)
    assert report.patients == {"train": 5, "validation": 2}
    assert report.left_out == {"HELD_OUT": 1}
    before = {side: {e.patient for e in entries(site, TASK, side)} for side in ("train", "validation")}
    moved = manifest.read_text("utf-8").replace("p0,0,train", "p0,0,val")
    manifest.write_text(moved, "utf-8")
    with pytest.raises(SiteMisconfigured, match="would move 1 patients of 'public'"):
        ingest(site, TASK)
    assert {side: {e.patient for e in entries(site, TASK, side)} for side in ("train", "validation")} == before


def test_a_task_without_source_is_an_error(site: SiteSettings) -> None:
    with pytest.raises(EmptySource, match="add one to `sources`"):
        ingest(site, tasks.get("pneumonia_xray"))


def test_another_versions_index_is_made_anew_and_patients_keep_their_side(site: SiteSettings) -> None:
    ingest(site, TASK)
    before = {side: {e.patient for e in entries(site, TASK, side)} for side in ("train", "validation")}
    with sqlite3.connect(site.catalog / "index.sqlite") as index:
        index.execute("DROP TABLE images")
        index.execute("CREATE TABLE images (image TEXT)")
        index.execute("PRAGMA user_version = 0")
    ingest(site, TASK)
    assert {side: {e.patient for e in entries(site, TASK, side)} for side in ("train", "validation")} == before


def test_black_outside_the_regions() -> None:
    pixels = np.full((10, 12), 0.5, np.float32)
    picture = Picture(pixels, ((2, 3, 5, 6), (8, 0, 12, 2)), (0.1, 0.1))
    black = blacked_out(picture)
    assert Counter(black.pixels.ravel().tolist()) == {0.0: 103, 0.5: 17}
    assert (black.pixels[3:6, 2:5] == 0.5).all()
    assert (black.regions, black.spacing_mm) == (picture.regions, picture.spacing_mm)
    assert pixels.all(), "the picture itself is left as it is"
    assert blacked_out(Picture(pixels)).pixels is pixels
    later = blacked_out(Picture(pixels / 2, picture.regions, beside=(pixels,)))
    np.testing.assert_array_equal(later.beside[0], black.pixels)
