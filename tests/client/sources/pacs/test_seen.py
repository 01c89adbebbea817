"""Labels by SOPInstanceUID over both ways: every examination is opened once, and again only for a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from client.sources.pacs import seen
from tests.client.sources import small_hospital
from tests.client.sources.pacs.test_walk import WAYS, Toy, _edit, _running


@pytest.fixture(params=WAYS)
def toy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Toy]:
    with _running(request.param, tmp_path, small_hospital.fill(tmp_path)) as one:
        _label(one, one.files[:1])
        yield one


def _label(toy: Toy, files: list[Path]) -> None:
    rows = [f"{dcmread(path, stop_before_pixels=True).SOPInstanceUID},1" for path in files]
    (toy.folder / "labels.csv").write_text("\n".join(["SOPInstanceUID,label", *rows, ""]), "utf-8")


def _studies(files: list[Path]) -> list[str]:
    return list(dict.fromkeys(str(dcmread(path, stop_before_pixels=True).StudyInstanceUID) for path in files))


def _opened(toy: Toy) -> int:
    """How many examinations the next listing opens; its records are as they are without a memory."""
    before = len(toy.asked())
    records = {record.image_id for record in toy.list().records}
    asked = toy.asked()[before:]
    memory = toy.folder / "spool" / "seen.sqlite"
    kept = memory.read_bytes()
    memory.unlink()
    assert {record.image_id for record in toy.list().records} == records
    memory.write_bytes(kept)
    return _series_searches(asked)


def _series_searches(asked: list[str]) -> int:
    """By C-FIND, or by QIDO-RS, where every page is a request."""
    pages = {one.partition("?")[0] for one in asked}
    return asked.count("FIND SERIES") + sum(page.endswith("/series") for page in pages)


def test_what_has_no_label_is_opened_once(toy: Toy) -> None:
    everything = len(_studies(toy.files))
    assert everything == 4
    assert (_opened(toy), _opened(toy), _opened(toy)) == (everything, 1, 1)


def test_a_new_label_opens_its_examination(toy: Toy) -> None:
    _opened(toy)
    last = toy.files[-1:]
    _label(toy, [*toy.files[:1], *last])
    assert _opened(toy) == 2
    assert {record.image_id for record in toy.list().records} == {
        str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in (toy.files[0], *last)
    }
    _label(toy, toy.files[:1])
    assert _opened(toy) == 1


def test_an_examination_that_has_changed_is_opened(toy: Toy) -> None:
    _opened(toy)
    new = toy.folder / "new.dcm"
    dataset = dcmread(toy.files[-1])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.4711"
    dataset.save_as(new)
    toy.files.append(new)
    _label(toy, [toy.files[0], new])
    assert _opened(toy) == 2, "one image more"
    _label(toy, toy.files[:1])
    assert _opened(toy) == 1
    last = _studies(toy.files)[-1]
    same = [path for path in toy.files if _studies([path]) == [last]]
    _edit(same, lambda dataset: setattr(dataset, "PatientName", "Another^Name"))
    assert (_opened(toy), _opened(toy)) == (2, 1)


def test_another_scope_sees_other_images(toy: Toy) -> None:
    _opened(toy)
    before = len(toy.asked())
    toy.list(scope={"modalities": ["US"], "body_parts": ["BREAST"], "body_part_unknown": "keep"})
    assert _series_searches(toy.asked()[before:]) == 4


def test_an_archive_without_counts_is_never_believed(toy: Toy) -> None:
    toy.search.tells_counts = False
    assert (_opened(toy), _opened(toy)) == (4, 4)


def test_after_a_month_everything_is_opened(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    _opened(toy)
    monkeypatch.setattr(seen, "_LONGEST_S", -1.0)
    assert _opened(toy) == 4


def test_nothing_in_the_memory_names_anybody(toy: Toy) -> None:
    toy.list()
    content = (toy.folder / "spool" / "seen.sqlite").read_bytes()
    for path in toy.files:
        header = dcmread(path, stop_before_pixels=True)
        for name in (header.SOPInstanceUID, header.StudyInstanceUID, header.PatientID):
            assert str(name).encode() not in content
    assert (toy.folder / "spool" / "seen.sqlite").stat().st_mode & 0o077 == 0
