"""What is kept of a header beside the contract's judgement: some attributes, none of which names anybody."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from client.reading.contract import NOTHING_DECLARED
from client.sources.acquisition import SPACING_MM, THICKNESS_MM, reader_under
from tasks import task as tasks

READER = reader_under(NOTHING_DECLARED, tasks.get("lung_ct"))
NAMED = {"PatientName": "Doe^Jane", "PatientID": "4711", "StudyDate": "20200101", "InstitutionName": "St Anne"}


def header(**attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in (NAMED | {"Modality": "CT", "PatientSex": "F", "PatientAge": "045Y"} | attributes).items():
        setattr(dataset, name, value)
    return dataset


def facts(**attributes: Any) -> dict[str, str]:
    told: dict[str, str] = json.loads(READER(header(**attributes)).facts)
    return told


def test_lengths_are_kept_to_three_digits_and_nobody_is_named() -> None:
    told = facts(PixelSpacing=[0.68359375, 0.7], SliceThickness=2.5004)
    assert (told[SPACING_MM], told[THICKNESS_MM]) == ("0.7", "2.5")
    assert (told["PatientSex"], told["PatientAge"]) == ("F", "045Y")
    assert not set(NAMED.values()) & set(told.values())


def test_equal_facts_are_one_object() -> None:
    one, other = (READER(header(PixelSpacing=[0.70001, 0.7])).facts, READER(header(PixelSpacing=[0.7, 0.7])).facts)
    assert one is other, "a hundred thousand images of one scanner need one text"


def test_lengths_of_an_enhanced_image_are_those_of_its_first_frame() -> None:
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.5], 5.0
    frame = Dataset()
    frame.PixelMeasuresSequence = Sequence([measures])
    told = facts(PerFrameFunctionalGroupsSequence=Sequence([frame]), NumberOfFrames=1)
    assert (told[SPACING_MM], told[THICKNESS_MM]) == ("0.5", "5")


@pytest.mark.parametrize(
    "attributes", [{}, {"PixelSpacing": [0, 0], "SliceThickness": 0}, {"SliceThickness": -1}, {"SliceThickness": None}]
)
def test_a_length_that_is_none_is_not_kept(attributes: dict[str, Any]) -> None:
    assert not {SPACING_MM, THICKNESS_MM} & facts(**attributes).keys()
