"""Segmentations beside the images: whose outlines they are, and which images nobody has looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from client.reading.decoding import Decoder
from client.sources.files.folder import list_folder
from client.sources.labels.outlines import ReadMasks
from client.sources.record import Listing, Record, Unreadable
from client.sources.settings import FolderSource
from tasks.breast_ultrasound import TASK
from tasks.codes import Code
from tasks.phantoms.dicom_writer import common_attributes, pixel_attributes, uid, write
from tasks.phantoms.segmentation import OutlinedImage, segmentation_of
from tasks.task import Structure

LESION = Structure("lesion", Code("SCT", "52988006", "Lesion"))
DUCT = Structure("duct", Code("SCT", "20559009", "Lactiferous duct"))
HEART = Structure("heart", Code("SCT", "80891009", "Heart"))
TWO = replace(TASK, structures=(LESION, DUCT), frames_per_clip=4)
SIZE = (12, 10)


def _image(folder: Path, number: int, frames: int = 0) -> dict[str, Any]:
    shape = (frames, *SIZE) if frames else SIZE
    pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    attributes = common_attributes("outlines", "alder", number, 0) | pixel_attributes(pixels, 8, "MONOCHROME2")
    attributes |= {"SOPClassUID": f"1.2.840.10008.5.1.4.1.1.{3 if frames else 6}.1", "Modality": "US"}
    attributes |= {"SOPInstanceUID": uid("outlines", number), "InstanceNumber": number}
    write(folder / "dicom" / f"{number}.dcm", attributes)
    with (folder / "labels.csv").open("a", encoding="utf-8") as file:
        file.write(f"{attributes['PatientID']},1\n")
    return attributes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "labels.csv").write_text("PatientID,label\n", "utf-8")
    return tmp_path


def _masks(seed: int, structures: int = 2, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((structures, *size)) < 0.4


def _outline(
    folder: Path, name: str, outlined: Sequence[OutlinedImage], structures: Sequence[Structure], **more: Any
) -> Path:
    path = folder / "dicom" / f"{name}.dcm"
    write(path, segmentation_of(outlined, structures, **more))
    return path


def _listing(folder: Path, task: Any = TWO) -> Listing:
    source = FolderSource(
        kind="folder", task=TASK.name, issuer="alder", path=folder / "dicom", labels=folder / "labels.csv"
    )
    return list_folder(source, task, frozenset())


def _of(record: Record) -> NDArray[np.bool_]:
    assert record.read_masks is not None
    return record.read_masks()


def test_an_image_has_what_was_outlined_on_it_by_code_whatever_the_order(folder: Path) -> None:
    first, second, _ = (_image(folder, number) for number in (1, 2, 3))
    masks, empty = _masks(1, 3), np.zeros((2, *SIZE), np.bool_)
    _outline(folder, "a", [OutlinedImage(first, masks)], [HEART, DUCT, LESION])
    _outline(folder, "b", [OutlinedImage(second, empty)], [LESION, DUCT], omit_empty=True)
    listing = _listing(folder)
    one, two, three = listing.records
    np.testing.assert_array_equal(_of(one), masks[[2, 1]])
    assert _of(two).shape == (2, *SIZE)
    assert not _of(two).any(), "somebody has looked, and found nothing"
    assert three.read_masks is None, "nobody has looked"
    assert not listing.left_out
    assert isinstance(one.read_masks, ReadMasks)
    with Decoder() as decoder:
        np.testing.assert_array_equal(one.read_masks.read(decoder.read_values), masks[[2, 1]])


def test_several_segmentations_of_an_image_are_united(folder: Path) -> None:
    image, masks, more = _image(folder, 1), _masks(1), _masks(2)
    _outline(folder, "a", [OutlinedImage(image, masks[:1])], [LESION])
    (incomplete,) = _listing(folder).records
    _outline(folder, "b", [OutlinedImage(image, more)], [DUCT, LESION])
    (united,) = _listing(folder).records
    np.testing.assert_array_equal(_of(united), [masks[0] | more[1], more[0]])
    assert incomplete.read_masks is None
    assert incomplete.signature != united.signature


def test_frames_of_a_clip_are_told_apart(folder: Path) -> None:
    clip, masks, other = _image(folder, 1, frames=8), _masks(1), _masks(2)
    _outline(folder, "a", [OutlinedImage(clip, masks, frame=3), OutlinedImage(clip, other, frame=4)], [LESION, DUCT])
    records = _listing(folder).records
    assert [record.image_id.rpartition(" ")[2] for record in records] == ["1", "3", "5", "7"]
    assert [record.read_masks is not None for record in records] == [False, True, False, False]
    np.testing.assert_array_equal(_of(records[1]), masks)


def test_what_cannot_be_used_is_counted_and_costs_no_image(folder: Path) -> None:
    images = [_image(folder, number) for number in (1, 2, 3)]
    _outline(folder, "a", [OutlinedImage(images[0], _masks(1, 1))], [LESION])
    small = {**images[1], "Rows": 6, "Columns": 5}
    _outline(folder, "b", [OutlinedImage(small, _masks(1, size=(6, 5)))], [LESION, DUCT])
    path = _outline(folder, "c", [OutlinedImage(images[2], _masks(3))], [LESION, DUCT])
    broken = dcmread(path)
    del broken.PerFrameFunctionalGroupsSequence
    broken.save_as(path)
    _outline(folder, "d", [OutlinedImage(images[2], _masks(3, 1))], [HEART])
    listing = _listing(folder)
    assert [record.read_masks for record in listing.records] == [None, None, None]
    counts = {"SEGMENTATION_INCOMPLETE": 1, "SEGMENTATION_OF_OTHER_SIZE": 1, "SEGMENTATION_UNREADABLE": 1}
    assert listing.left_out == Counter(counts)


def test_pixels_that_cannot_be_decoded_are_refused_when_they_are_read(folder: Path) -> None:
    path = _outline(folder, "a", [OutlinedImage(_image(folder, 1), _masks(1))], [LESION, DUCT])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(dcmread(path).PixelData) + 3])
    (record,) = _listing(folder).records
    with pytest.raises(Unreadable) as refusal:
        _of(record)
    assert refusal.value.reason == "SEGMENTATION_UNREADABLE"


def test_a_task_without_structures_passes_segmentations_by(folder: Path) -> None:
    _outline(folder, "a", [OutlinedImage(_image(folder, 1), _masks(1))], [LESION, DUCT])
    listing = _listing(folder, replace(TASK, structures=(), read_masks=None))
    assert [record.read_masks for record in listing.records] == [None]
    assert not listing.left_out
