"""Archives that change, leave out and limit, over both ways: nothing is lost, and nothing is believed too early."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread

from client.errors import AnswerIncomplete, ArchiveShrunk
from client.sources.pacs.date_split import Days, whole
from client.sources.pacs.dicomweb import list_dicomweb
from client.sources.pacs.dimse import list_dimse
from client.sources.pacs.search import SearchAnswer
from client.sources.record import Listing
from client.sources.settings import DicomwebSource, DimseSource
from client.sources.visit import Sighting, Visit
from tasks.breast_ultrasound import TASK
from tasks.phantoms.dicom_writer import write
from tasks.phantoms.segmentation import OutlinedImage, segmentation_of
from tests.client.sources import small_hospital
from tests.client.sources.pacs import dicomweb_server, dimse_server
from tests.client.sources.pacs.toy_search import ToySearch

NOBODY: frozenset[str] = frozenset()
WAYS = ("dicomweb", "dimse")


@dataclass
class Toy:
    """An archive on loopback by either way.

    Attributes:
        search: what it finds.
        cut: let it say so when it leaves out something.
        sent: how many files it has sent.
        asked: the levels or paths of what it was asked for.
    """

    way: str
    search: ToySearch
    files: list[Path]
    cut: Callable[[], None]
    sent: Callable[[], int]
    asked: Callable[[], list[str]]
    where: dict[str, Any]
    folder: Path

    def list(self, visit: Visit | None = None, withdrawn: frozenset[str] = NOBODY, **changes: Any) -> Listing:
        common = {"task": TASK.name, "issuer": "alder", "path": self.folder / "spool", "scope": {"modalities": ["US"]}}
        common |= {"labels": self.folder / "labels.csv", "attempts": 2, "first_wait_seconds": 0.01, "kind": self.way}
        values = common | self.where | changes
        if self.way == "dicomweb":
            return list_dicomweb(DicomwebSource.model_validate(values), TASK, withdrawn, visit or Visit())
        return list_dimse(DimseSource.model_validate(values), TASK, withdrawn, visit or Visit())


@pytest.fixture(params=WAYS)
def toy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Toy]:
    with _running(request.param, tmp_path, small_hospital.fill(tmp_path)) as one:
        yield one


@contextmanager
def _running(way: str, folder: Path, files: list[Path]) -> Iterator[Toy]:
    search = ToySearch()
    if way == "dicomweb":
        service = dicomweb_server.Service(files, search=search)
        with dicomweb_server.running(service):
            yield Toy(
                way, search, files, lambda: setattr(service, "warns", True), lambda: len(service.sent),
                lambda: [path for path, _ in service.requests], {"url": service.url}, folder,
            )  # fmt: skip
    else:
        provider = dimse_server.Provider(files, search=search)
        with dimse_server.running(provider):
            where = {"host": "127.0.0.1", "port": provider.port, "called_ae": "ARCHIVE"}
            yield Toy(
                way, search, files, lambda: setattr(provider, "cut_status", 0xFE00), lambda: provider.sent,
                lambda: provider.requests, where, folder,
            )  # fmt: skip


def _edit(paths: list[Path], change: Callable[[Dataset], None]) -> None:
    for path in paths:
        dataset = dcmread(path)
        change(dataset)
        dataset.save_as(path)


def _by_instance(toy: Toy) -> None:
    """Labels that name images, so that nothing narrows the search."""
    uids = [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in toy.files]
    rows = [f"{uid},{number % 2}" for number, uid in enumerate(uids)]
    (toy.folder / "labels.csv").write_text("\n".join(["SOPInstanceUID,label", *rows, ""]), "utf-8")


def _over_a_year(toy: Toy) -> None:
    for number in range(4):
        day = f"{date(2025, 1, 1) + timedelta(90 * number):%Y%m%d}"
        _edit(toy.files[2 * number : 2 * number + 2], lambda dataset, day=day: setattr(dataset, "StudyDate", day))


@pytest.mark.parametrize("says_so", [False, True], ids=["silent", "says so"])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_on_answers_loses_nothing(toy: Toy, limit: int, says_so: bool) -> None:
    _over_a_year(toy)
    _by_instance(toy)
    toy.search.limit = limit
    if says_so:
        toy.cut()
    elif limit == 1:
        pytest.skip("one match without a word could be all there is")
    assert len(toy.list().records) == 8


def test_a_limit_that_dates_do_not_get_around_is_an_error_with_its_remedy(toy: Toy) -> None:
    _edit(toy.files, lambda dataset: setattr(dataset, "StudyDate", "20250101"))
    _by_instance(toy)
    toy.list()
    toy.search.limit = 3
    toy.cut()
    with pytest.raises(AnswerIncomplete, match="limit on answers must be raised"):
        toy.list()
    assert len(list((toy.folder / "spool" / "images").rglob("*.dcm"))) == 8, "nothing was deleted"


def test_what_a_short_answer_leaves_out_is_asked_for_and_kept(toy: Toy) -> None:
    """Not even a search that finds next to nothing, and says nothing, costs an image that is here."""
    _edit(toy.files, lambda dataset: setattr(dataset, "StudyDate", "20250101"))
    _by_instance(toy)
    toy.list()
    toy.search.limit = 1
    sent = toy.sent()
    listing = toy.list()
    assert len(listing.records) == 8
    assert [warning.split(":")[0] for warning in listing.warnings] == ["SHORT_ANSWER"]
    assert toy.sent() == sent


def test_a_series_of_which_not_all_is_listed_keeps_what_is_here(toy: Toy) -> None:
    _by_instance(toy)
    toy.list()
    toy.search.most_images = 1
    listing = toy.list()
    assert len(listing.records) == 8
    assert listing.left_out["INSTANCES_NOT_LISTED"] == 4
    assert any(warning.startswith("NOT_LISTED: 4") for warning in listing.warnings)
    withdrawn = toy.list(withdrawn=frozenset({"ALDER-0001"}))
    assert {record.patient_id for record in withdrawn.records} == {"ALDER-0002", "ALDER-0003", "ALDER-0004"}
    assert len(list((toy.folder / "spool" / "images").rglob("*.dcm"))) == 6, "a withdrawal needs nobody's answer"


def test_a_large_loss_needs_a_persons_word(toy: Toy) -> None:
    toy.list()
    del toy.files[:6]
    with pytest.raises(ArchiveShrunk, match=r"6 of 8 .* --accept-shrink"):
        toy.list()
    assert len(list((toy.folder / "spool" / "images").rglob("*.dcm"))) == 8
    assert len(toy.list(Visit(accept_shrink=True)).records) == 2
    assert len(list((toy.folder / "spool" / "images").rglob("*.dcm"))) == 2


def test_a_small_loss_and_a_narrower_scope_need_none(toy: Toy) -> None:
    _over_a_year(toy)
    toy.list()
    assert len(toy.list(scope={"modalities": ["US"], "until": "2025-02-01"}).records) == 2, "our own decision"
    assert len(toy.list().records) == 8
    del toy.files[:2]
    assert len(toy.list().records) == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda dataset: setattr(dataset, "PatientID", "NEW-1"),
        lambda dataset: setattr(dataset, "PatientName", "Corrected^Name"),
        lambda dataset: setattr(dataset, "InstanceNumber", int(dataset.InstanceNumber) + 10),
    ],
)
def test_what_the_archive_tells_otherwise_is_retrieved_again(toy: Toy, change: Callable[[Dataset], None]) -> None:
    _by_instance(toy)
    toy.list()
    sent = toy.sent()
    _edit(toy.files[:2], change)
    toy.list()
    assert toy.sent() == sent + 2
    toy.list()
    assert toy.sent() == sent + 2, "once"


def test_a_spool_of_an_older_release_is_compared_by_its_files(toy: Toy) -> None:
    import sqlite3

    _by_instance(toy)
    toy.list()
    with sqlite3.connect(toy.folder / "spool" / "spool.sqlite") as index:
        index.execute("DROP TABLE told")
    sent = toy.sent()
    _edit(toy.files[:2], lambda dataset: setattr(dataset, "PatientID", "NEW-1"))
    toy.list()
    assert toy.sent() == sent + 2


def test_a_change_that_nothing_tells_is_found_by_verifying(toy: Toy) -> None:
    toy.list()
    sent = toy.sent()
    _edit(toy.files[:1], _inverted)
    unseen = toy.list()
    assert (toy.sent(), unseen.warnings) == (sent, [])
    signatures = {record.image_id: record.signature for record in unseen.records}
    listing = toy.list(Visit(verify=True))
    assert toy.sent() == sent + 8
    assert [warning.split(":")[0] for warning in listing.warnings] == ["REPLACED"]
    changed = {record.image_id for record in listing.records if record.signature != signatures[record.image_id]}
    assert changed == {str(dcmread(toy.files[0]).SOPInstanceUID)}, "what is the same is not decoded again"
    toy.list(verify_days=1)
    assert toy.sent() == sent + 8, "not due yet"
    toy.list(verify_days=1e-9)
    assert toy.sent() == sent + 16


def _inverted(dataset: Dataset) -> None:
    dataset.PixelData = bytes(255 - value for value in dataset.PixelData)


def test_what_has_changed_and_cannot_be_retrieved_is_not_used(toy: Toy) -> None:
    """Better without an image than with one of whom the archive says that it is somebody else's."""
    _by_instance(toy)
    toy.list()
    _edit(toy.files[:2], lambda dataset: setattr(dataset, "PatientID", "NEW-1"))
    listing = toy.list(hours=_never())
    assert listing.left_out["OUTSIDE_HOURS"] == 2
    assert len(listing.records) == 6
    assert len(toy.list().records) == 8


def _never() -> str:
    """A minute that is over or far away."""
    from datetime import datetime

    hour = (datetime.now().hour + 12) % 24
    return f"{hour:02d}:00-{hour:02d}:01"


def test_only_examinations_with_a_label_are_opened(toy: Toy) -> None:
    (toy.folder / "labels.csv").write_text("PatientID,label\nALDER-0001,0\n", "utf-8")
    assert len(toy.list().records) == 2
    searches = [asked for asked in toy.asked() if "GET" not in asked and "/instances/" not in asked]
    pages = 2 if toy.way == "dicomweb" else 1
    assert len(searches) == 3 * pages, "one study by its patient, its series, its images"


def _renamed_visit(toy: Toy, old: str, **more: Any) -> Visit:
    """As if the hospital knew this patient's examinations of today under any later number."""
    headers = [dcmread(path, stop_before_pixels=True) for path in toy.files]
    studies = {str(header.StudyInstanceUID) for header in headers if header.PatientID == old}

    def known_as(issuer: str, numbers: Iterable[str]) -> Callable[[Sighting], str]:
        return lambda one: old if issuer == "alder" and one.study in studies and old in numbers else ""

    return Visit(known_as=known_as, **more)


def test_a_label_by_patient_follows_to_a_new_number(toy: Toy) -> None:
    visit = _renamed_visit(toy, "ALDER-0001")
    toy.list()
    _edit(toy.files[:2], lambda dataset: setattr(dataset, "PatientID", "NEW-1"))
    listing = toy.list(visit)
    assert sorted(record.patient_id for record in listing.records)[-2:] == ["NEW-1", "NEW-1"]
    assert len(listing.records) == 8
    assert listing.left_out == {}
    assert [warning for warning in listing.warnings if not warning.startswith("UNPROVEN")] == []
    dataset = dcmread(toy.files[0])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.1", "2.25.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.3"
    toy.files.append(toy.folder / "later.dcm")
    dataset.save_as(toy.files[-1])
    by_person = Visit(known_as=lambda issuer, numbers: lambda one: "ALDER-0001" if one.patient == "NEW-1" else "")
    assert len(toy.list(by_person).records) == 9, "a later examination has the new number only"
    assert len(toy.list(Visit(accept_shrink=True)).records) == 6, "nobody knows who that is"


def test_a_list_of_merges_finds_a_labelled_patient_in_a_new_spool(toy: Toy) -> None:
    _edit(toy.files[:2], lambda dataset: setattr(dataset, "PatientID", "NEW-2"))
    known = Visit(
        known_as=lambda issuer, numbers: lambda one: "ALDER-0001" if one.patient == "NEW-2" else "",
        surviving={"ALDER-0001": "NEW-1", "NEW-1": "NEW-2", "OTHER": "X", "NEW-2": "ALDER-0001"},
    )
    assert len(toy.list(known).records) == 8


def test_two_who_were_labelled_otherwise_have_no_label_as_one(toy: Toy) -> None:
    toy.list()
    _edit(toy.files[:4], lambda dataset: setattr(dataset, "PatientID", "NEW-1"))
    before = {str(dcmread(path).StudyInstanceUID): f"ALDER-000{1 + number // 2}" for number, path in
              enumerate(toy.files[:4])}  # fmt: skip
    visit = Visit(known_as=lambda issuer, numbers: lambda one: before.get(one.study, ""), accept_shrink=True)
    listing = toy.list(visit)
    assert len(listing.records) == 4
    assert listing.left_out["CONTRADICTING_LABEL_ROWS"] == 1


def test_few_labels_in_a_large_archive_are_no_reason_to_refuse(toy: Toy) -> None:
    uid = str(dcmread(toy.files[0], stop_before_pixels=True).SOPInstanceUID)
    (toy.folder / "labels.csv").write_text(f"SOPInstanceUID,label\n{uid},0\n", "utf-8")
    listing = toy.list()
    assert listing.left_out == {"STUDY_WITHOUT_LABEL": 3, "IMAGE_WITHOUT_LABEL": 1}


@pytest.mark.parametrize(
    ("scope", "number"),
    [
        ({"accessions": ["ACC-2"]}, 2),
        ({"study_descriptions": ["*mamma*", "x?"]}, 2),
        ({"study_descriptions": ["thorax"]}, 0),
    ],
)
def test_a_scope_by_lists_and_descriptions(toy: Toy, scope: dict[str, Any], number: int) -> None:
    from client.errors import EmptySource

    def describe(dataset: Dataset, which: int) -> None:
        dataset.AccessionNumber, dataset.StudyDescription = f"ACC-{which}", "US Mamma li." if which == 2 else "US Hals"

    for which in range(4):
        _edit(toy.files[2 * which : 2 * which + 2], lambda dataset, which=which: describe(dataset, which))
    _by_instance(toy)
    toy.search.tells.add("StudyDescription")
    if number:
        assert len(toy.list(scope={"modalities": ["US"], **scope}).records) == number
    else:
        with pytest.raises(EmptySource):
            toy.list(scope={"modalities": ["US"], **scope})


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same examination", "another examination"])
@pytest.mark.parametrize("tells_class", [True, False])
def test_outlines_follow_their_images(tmp_path: Path, tells_class: bool, elsewhere: bool) -> None:
    """Whatever body part they tell, whichever examination they are in, whether or not the archive tells their class."""
    files = small_hospital.fill(tmp_path)
    image = dcmread(files[0])
    masks = np.random.default_rng(0).random((1, image.Rows, image.Columns)) < 0.3
    plain = {element.keyword: element.value for element in image if element.keyword}
    files.append(tmp_path / "dicom" / "outline.dcm")
    write(files[-1], segmentation_of([OutlinedImage(plain, masks)], TASK.structures))

    def untell(dataset: Dataset) -> None:
        dataset.pop("BodyPartExamined", None)
        dataset.StudyInstanceUID = f"{str(dataset.StudyInstanceUID)[:-3]}.9" if elsewhere else dataset.StudyInstanceUID

    _edit(files[-1:], untell)
    scope = {"modalities": ["US", "SEG"], "body_parts": ["BREAST"]}
    provider = dimse_server.Provider(files, tells_class=tells_class)
    with dimse_server.running(provider):
        where = {"host": "127.0.0.1", "port": provider.port, "called_ae": "ARCHIVE", "kind": "dimse"}
        common = {"task": TASK.name, "issuer": "alder", "path": tmp_path / "spool", "scope": scope}
        source = DimseSource.model_validate(common | where | {"labels": tmp_path / "labels.csv"})
        listing = list_dimse(source, TASK, NOBODY)
        assert list_dimse(source, TASK, NOBODY).warnings == listing.warnings == [], "none was asked for in vain"
    outlined = [record for record in listing.records if record.read_masks is not None]
    assert [record.image_id for record in outlined] == [str(image.SOPInstanceUID)]


class _Limited:
    """A search that gives out so many studies, the newest first, and may say so."""

    def __init__(self, days: list[date], limit: int, says_so: bool) -> None:
        self._studies = [(str(number), day) for number, day in enumerate(days)]
        self._limit, self._says_so = limit, says_so

    def studies(self, keys: Any) -> SearchAnswer:
        first, last = (keys.get("StudyDate") or "-").split("-")
        chosen = [(uid, day) for uid, day in self._studies if (first or "0") <= f"{day:%Y%m%d}" <= (last or "9")]
        chosen.sort(key=lambda one: one[1], reverse=True)
        matches = [{"StudyInstanceUID": (u,), "StudyDate": (f"{d:%Y%m%d}",)} for u, d in chosen[: self._limit]]
        return SearchAnswer(matches, "cut" if self._says_so and len(chosen) > self._limit else "")

    def series(self, study: str) -> SearchAnswer:
        raise NotImplementedError

    def instances(self, study: str, series: str) -> SearchAnswer:
        raise NotImplementedError


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dates(date(2001, 1, 1), date(2026, 12, 31)), unique=True, max_size=60),
    st.integers(2, 20),
    st.booleans(),
    st.sampled_from([Days(), Days(date(1999, 1, 1)), Days(None, date(2030, 1, 1)), Days(date(2001, 1, 1), date.max)]),
)
def test_halving_the_dates_finds_every_study_of_a_limited_archive(
    days: list[date], limit: int, says_so: bool, within: Days
) -> None:
    found = whole(_Limited(days, limit, says_so), {}, within)
    assert {match["StudyInstanceUID"][0] for match in found} == {str(number) for number in range(len(days))}


def test_a_whole_answer_costs_two_searches_more() -> None:
    asked: list[str] = []

    class Counting(_Limited):
        def studies(self, keys: Any) -> SearchAnswer:
            asked.append(json.dumps(keys))
            return super().studies(keys)

    days = [date(2020, 1, 1) + timedelta(number) for number in range(50)]
    assert len(whole(Counting(days, 1000, False), {}, Days())) == 50
    assert len(asked) == 3
