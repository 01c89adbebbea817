"""Slices to volumes: order, spacing, affine, and a name for everything that is not as it should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from client.reading.dicom import read_header
from client.reading.slices import slices_of
from client.reading.stacks import Check, CheckResult, CheckState, NoVolume, Series, Unstackable, arrange
from client.reading.volume import read_volume
from tasks.task import Volume
from tests.client.dicom_files import bundled, write

AXIAL = [1.0, 0, 0, 0, 1, 0]
SAGITTAL = [0.0, 1, 0, 0, 0, -1]
PIXELS = np.arange(12, dtype=np.int16).reshape(3, 4)


def _write(folder: Path, number: int, position: Sequence[float], **attributes: Any) -> Path:
    given: dict[str, Any] = {
        "SOPInstanceUID": f"1.2.3.{number}",
        "SOPClassUID": CTImageStorage,
        "FrameOfReferenceUID": "1.9",
        "ImageOrientationPatient": AXIAL,
        "ImagePositionPatient": [float(p) for p in position],
        "PixelSpacing": [0.5, 0.25],
        "SliceThickness": 2,
        "RescaleSlope": 1,
        "RescaleIntercept": -1000,
    } | attributes
    return write(folder / f"{number}.dcm", PIXELS + number, **given)


def _arranged(paths: Sequence[Path]) -> Series:
    return arrange([one for path in paths for one in slices_of(path, read_header(path))])


def _found(findings: Sequence[CheckResult], check: Check) -> CheckResult:
    (finding,) = [finding for finding in findings if finding.check is check]
    return finding


def _refusal(series: Series) -> Unstackable:
    (stack,) = series.stacks
    assert stack.refusal is not None
    with pytest.raises(NoVolume, match=stack.refusal.reason):
        read_volume(stack)
    return stack.refusal.reason


def _spacing_mm(volume: Volume) -> tuple[float, ...]:
    """Between slices, rows, columns."""
    return tuple(np.linalg.norm(volume.affine[:3, :3], axis=0).tolist())


def test_slices_are_sorted_by_position_and_measured(tmp_path: Path) -> None:
    order = [3, 0, 4, 1, 2]
    paths = [_write(tmp_path, n, (10, 20, 2.0 * n), InstanceNumber=99 - n) for n in order]
    series = _arranged(paths)
    (stack,) = series.stacks
    volume = read_volume(stack)
    np.testing.assert_array_equal(volume.values, [PIXELS + n - 1000.0 for n in range(5)])
    assert (_spacing_mm(volume), volume.unit, volume.values.dtype) == ((2.0, 0.5, 0.25), "HU", np.float32)
    np.testing.assert_allclose(volume.affine @ [1, 2, 3, 1], [10 + 3 * 0.25, 20 + 2 * 0.5, 2, 1])
    states = {finding.check: finding.state for finding in (*series.findings, *stack.findings)}
    assert states.pop(Check.SPACING_AS_DECLARED) is states.pop(Check.COMPLETE) is CheckState.UNKNOWN
    assert set(states.values()) == {CheckState.HOLDS}


@settings(max_examples=20, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    step=st.floats(0.3, 8),
    order=st.permutations(range(6)),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
)
def test_any_direction_gives_the_positions_back(
    angles: tuple[float, float, float], step: float, order: list[int], origin: tuple[float, float, float]
) -> None:
    turn = _rotation(angles)
    at = [np.array(origin) + n * step * turn[:, 2] for n in range(6)]
    headers = [_header(n, at[n], [*turn[:, 0], *turn[:, 1]]) for n in order]
    (stack,) = arrange([one for n, header in headers for one in slices_of(Path(str(n)), header)]).stacks
    assert stack.refusal is None
    assert [one.path.name for one in stack.slices] == [str(n) for n in range(6)]
    np.testing.assert_allclose(np.diff(stack.offsets_mm), step, atol=1e-3)
    assert _found(stack.findings, Check.UPRIGHT).state is CheckState.HOLDS


def _rotation(angles: tuple[float, float, float]) -> NDArray[np.float64]:
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        one = np.eye(3)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    return turn


def _header(number: int, position: NDArray[np.float64], directions: list[float]) -> tuple[int, Dataset]:
    header = Dataset()
    header.Rows = header.Columns = 8
    header.SOPInstanceUID, header.FrameOfReferenceUID = f"1.{number}", "1.9"
    header.PixelSpacing = [1, 1]
    header.ImagePositionPatient = [f"{value:.6f}" for value in position]
    header.ImageOrientationPatient = [f"{value:.8f}" for value in directions]
    return number, header


def test_missing_and_uneven_slices_are_refused_by_name(tmp_path: Path) -> None:
    assert _refusal(_arranged([_write(tmp_path, n, (0, 0, 2.0 * n)) for n in (0, 1, 2, 4, 5)])) is (
        Unstackable.SLICES_MISSING
    )
    places = (0, 2, 4, 7.1, 9)
    assert _refusal(_arranged([_write(tmp_path, n, (0, 0, z)) for n, z in enumerate(places)])) is (
        Unstackable.UNEVEN_SPACING
    )
    assert _refusal(_arranged([_write(tmp_path, 0, (0, 0, 0))])) is Unstackable.TOO_FEW_SLICES


def test_copies_are_left_out_but_two_images_of_one_place_are_refused(tmp_path: Path) -> None:
    paths = [_write(tmp_path, n, (0, 0, 2.0 * n)) for n in range(4)]
    series = _arranged([*paths, paths[1]])
    (stack,) = series.stacks
    assert (len(stack.slices), stack.refusal) == (4, None)
    assert _found(stack.findings, Check.NO_COPIES).state is CheckState.VIOLATED
    other = _write(tmp_path, 9, (0, 0, 2.0))
    assert _refusal(_arranged([*paths, other])) is Unstackable.DUPLICATE_POSITION


def test_localizers_echoes_and_other_matrices_become_stacks_of_their_own(tmp_path: Path) -> None:
    paths = [_write(tmp_path, n, (0, 0, 2.0 * n)) for n in range(4)]
    paths += [_write(tmp_path, 10 + n, (2.0 * n, 0, 0), ImageOrientationPatient=SAGITTAL) for n in range(3)]
    paths += [_write(tmp_path, 20 + n, (0, 0, 2.0 * n), EchoNumbers=2) for n in range(3)]
    paths += [_write(tmp_path, 30 + n, (0, 0, 2.0 * n), FrameOfReferenceUID="1.8") for n in range(2)]
    larger = write(
        tmp_path / "40.dcm",
        np.zeros((5, 5), np.int16),
        ImageOrientationPatient=AXIAL,
        ImagePositionPatient=[0.0, 0, 99],
        PixelSpacing=[0.5, 0.25],
        FrameOfReferenceUID="1.9",
    )
    series = _arranged([*paths, larger])
    assert [len(stack.slices) for stack in series.stacks] == [4, 3, 3, 2, 1]
    for check in (Check.ONE_ORIENTATION, Check.ONE_MATRIX, Check.ONE_FRAME_OF_REFERENCE):
        assert _found(series.findings, check).state is CheckState.VIOLATED
    assert "2 orientations" in _found(series.findings, Check.ONE_ORIENTATION).detail


def test_a_tilted_gantry_is_noticed_and_the_affine_is_sheared(tmp_path: Path) -> None:
    shift = 2 * np.tan(np.radians(15))
    paths = [_write(tmp_path, n, (0, shift * n, 2.0 * n), GantryDetectorTilt=15) for n in range(4)]
    (stack,) = _arranged(paths).stacks
    finding = _found(stack.findings, Check.UPRIGHT)
    assert finding.state is CheckState.VIOLATED
    assert "15.0 degrees; GantryDetectorTilt says 15" in finding.detail
    volume = read_volume(stack)
    np.testing.assert_allclose(volume.affine[:3, 0], [0, shift, 2])
    assert np.diff(stack.offsets_mm) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("attributes", "check", "state"),
    [
        ({"SliceThickness": 1}, Check.CONTIGUOUS, CheckState.VIOLATED),
        ({"SliceThickness": 3}, Check.CONTIGUOUS, CheckState.VIOLATED),
        ({"SliceThickness": None}, Check.CONTIGUOUS, CheckState.UNKNOWN),
        ({"SpacingBetweenSlices": 2}, Check.SPACING_AS_DECLARED, CheckState.HOLDS),
        ({"SpacingBetweenSlices": 5}, Check.SPACING_AS_DECLARED, CheckState.VIOLATED),
        ({"ImagesInAcquisition": 4}, Check.COMPLETE, CheckState.HOLDS),
        ({"ImagesInAcquisition": 6}, Check.COMPLETE, CheckState.VIOLATED),
        ({"FrameOfReferenceUID": None}, Check.ONE_FRAME_OF_REFERENCE, CheckState.UNKNOWN),
    ],
)
def test_wishes_hold_are_violated_or_unknown(
    tmp_path: Path, attributes: dict[str, object], check: Check, state: CheckState
) -> None:
    series = _arranged([_write(tmp_path, n, (0, 0, 2.0 * n), **attributes) for n in range(4)])
    assert _found((*series.findings, *series.stacks[0].findings), check).state is state
    assert series.stacks[0].refusal is None


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": [1.0, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [0.0, 0, 0, 0, 0, 0]},
        {"PixelSpacing": [0, 0]},
    ],
)
def test_frames_without_a_place_are_said(tmp_path: Path, attributes: dict[str, object]) -> None:
    series = _arranged([_write(tmp_path, n, (0, 0, 2.0 * n), **attributes) for n in range(2)])
    assert series.stacks == ()
    assert _found(series.findings, Check.ALL_PLACED).state is CheckState.VIOLATED
    assert _found(series.findings, Check.ONE_ORIENTATION).state is CheckState.UNKNOWN


def test_different_units_make_no_volume(tmp_path: Path) -> None:
    paths = [_write(tmp_path, n, (0, 0, 2.0 * n), RescaleType="HU" if n else "OD") for n in range(3)]
    with pytest.raises(NoVolume, match="MIXED_UNITS: HU and OD"):
        read_volume(_arranged(paths).stacks[0])


def _group(z: float) -> Dataset:
    place = Dataset()
    place.ImagePositionPatient = [0.0, 0, z]
    group = Dataset()
    group.PlanePositionSequence = [place]
    return group


def _enhanced(path: Path, order: Sequence[int]) -> Path:
    how, measures, shared = Dataset(), Dataset(), Dataset()
    how.ImageOrientationPatient = AXIAL
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = [0.5, 0.25], 2, 2
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [how], [measures]
    return write(
        path,
        PIXELS,
        np.stack([PIXELS + n for n in order]).tobytes(),
        NumberOfFrames=len(order),
        FrameOfReferenceUID="1.9",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[_group(2.0 * n) for n in order],
    )


def test_an_enhanced_file_is_a_volume_by_its_functional_groups(tmp_path: Path) -> None:
    (stack,) = _arranged([_enhanced(tmp_path / "a.dcm", [2, 0, 3, 1])]).stacks
    volume = read_volume(stack)
    np.testing.assert_array_equal(volume.values, [PIXELS + n for n in range(4)])
    assert {finding.state for finding in stack.findings} == {CheckState.HOLDS}


def test_a_reader_of_ones_own_may_decode(tmp_path: Path) -> None:
    from client.reading.decoding import Decoder

    (stack,) = _arranged([_write(tmp_path, n, (0, 0, 2.0 * n)) for n in range(3)]).stacks
    with Decoder() as decoder:
        there = read_volume(stack, decoder.read_values)
    np.testing.assert_array_equal(there.values, read_volume(stack).values)


def test_a_real_ct_series_stacks() -> None:
    paths = [path for path in bundled("dicomdirtests/DICOMDIR").parent.glob("98892001/CT5N/*") if path.is_file()]
    series = _arranged(paths)
    volume = read_volume(series.stacks[0])
    assert (volume.values.shape, volume.unit) == ((5, 16, 16), "HU")
    assert _spacing_mm(volume) == pytest.approx((2.5, 0.488281, 0.488281))
