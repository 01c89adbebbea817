"""A damaged report, segmentation or mask costs itself only: the others of its folder count, and nothing is raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread

from client.sources.labels.annotations import read_annotations
from tests.client.sources import small_hospital
from tests.client.sources.labels.test_annotations import (
    ASSESSMENT,
    BENIGN,
    BOTH,
    MALIGNANT,
    _annotations,
    _judged,
    _marked,
    _report,
    _segmentation,
)


def bounded(steady: int, explored: int) -> settings:
    """So many cases in ``make test``, and in ``make explore``."""
    most = steady if settings.get_current_profile_name() == "steady" else explored
    return settings(deadline=None, max_examples=most, suppress_health_check=list(HealthCheck))


CODE = f"SCT:{ASSESSMENT.value}"
KINDS: dict[str, dict[str, Any]] = {"sr": {"concept": CODE, **BOTH}, "seg": BOTH, "masks": {}}
ENDING = {"sr": ".dcm", "seg": ".dcm", "masks": ".png"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind a folder with two annotations, a and b, of two images."""
    root = tmp_path_factory.mktemp("annotations")
    images = [dcmread(path) for path in small_hospital.fill(root)]
    for image in images:
        for keyword in ("PatientSex", "AccessionNumber", "StudyID", "StudyTime", "Laterality", "FrameOfReferenceUID"):
            if keyword not in image:
                setattr(image, keyword, "1.2.3" if keyword.endswith("UID") else "")
    for kind in KINDS:
        (root / kind).mkdir()
    for name, image, value in (("a", images[0], MALIGNANT), ("b", images[2], BENIGN)):
        _report(root / "sr" / f"{name}.dcm", [image], [_judged(image, value)])
        _segmentation(root / "seg" / f"{name}.dcm", image, [(value, _marked(image))])
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(root / "masks" / f"{name}.png")
    return root


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The file with some bytes exchanged, put in, or cut off; most damage is done to what stands after the preamble."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        piece = draw(
            st.binary(max_size=6) | st.sampled_from([b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"SQ", b"\0\0"])
        )
        content = content[:at] + piece + content[at + draw(st.sampled_from([0, 1, 2, 4, len(piece), 10_000])) :]
    return content


def holds(folders: Path, kind: str, data: st.DataObject) -> None:
    """Damage to a costs b nothing."""
    folder, name = folders / kind, f"a{ENDING[kind]}"
    whole, asked = (folder / name).read_bytes(), _annotations(folder, kind=kind, **KINDS[kind])
    (folder / name).unlink()
    try:
        ((other, label),) = read_annotations(asked).values.items()
        (folder / name).write_bytes(data.draw(damaged(whole)))
        found = read_annotations(asked).values
    finally:
        (folder / name).write_bytes(whole)
    assert found.get(other, label) == label  # it is not there if the damaged one now says the opposite of its image
    assert set(found.values()) <= {0, 1}


@pytest.mark.parametrize("kind", ["sr", "masks"])
@given(data=st.data())
@bounded(25, 300)
def test_damage_to_a_report_or_mask_costs_the_other_nothing(folders: Path, kind: str, data: st.DataObject) -> None:
    holds(folders, kind, data)


@given(data=st.data())
@bounded(3, 60)  # each is decoded in processes of their own, twice
def test_damage_to_a_segmentation_costs_the_other_nothing(folders: Path, data: st.DataObject) -> None:
    holds(folders, "seg", data)
