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
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage

from client.reading.decoding import Decoder
from client.reading.dicom import read_header, read_values
from client.reading.slices import Slice, slices_of
from client.reading.spacing import even, missing
from client.reading.stack import Note, NoVolume, Stack, Unstackable
from client.reading.stacks import arrange
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


def _arranged(paths: Sequence[Path], **more: Any) -> tuple[Stack, ...]:
    return arrange([one for path in paths for one in slices_of(path, read_header(path))], **more)


def _refusal(stacks: Sequence[Stack]) -> Unstackable:
    (stack,) = stacks
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
    (stack,) = _arranged(paths)
    volume = read_volume(stack)
    np.testing.assert_array_equal(volume.values, [PIXELS + n - 1000.0 for n in range(5)])
    assert (_spacing_mm(volume), volume.unit, volume.values.dtype) == ((2.0, 0.5, 0.25), "HU", np.float32)
    np.testing.assert_allclose(volume.affine @ [1, 2, 3, 1], [10 + 3 * 0.25, 20 + 2 * 0.5, 2, 1])
    assert (stack.notes, stack.left_out) == (frozenset(), 0)


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
    (stack,) = arrange([one for n, header in headers for one in slices_of(Path(str(n)), header)])
    assert stack.refusal is None
    assert [one.path.name for one in stack.slices] == [str(n) for n in range(6)]
    np.testing.assert_allclose(np.diff(stack.offsets_mm), step, atol=1e-3)
    assert Note.TILTED_GANTRY not in stack.notes


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
    (stack,) = _arranged([*paths, paths[1]])
    assert (len(stack.slices), stack.refusal, stack.notes) == (4, None, {Note.SENT_TWICE})
    other = _write(tmp_path, 9, (0, 0, 2.0))
    assert _refusal(_arranged([*paths, other])) is Unstackable.DUPLICATE_POSITION


def test_what_was_sent_twice_under_new_names_is_read_once(tmp_path: Path) -> None:
    """Only where all pixels are the same: else they are phases, and nobody is asked about more than one pair."""
    paths = [_write(tmp_path, n + 10 * again, (0, 0, 2.0 * n)) for n in range(4) for again in (0, 1)]
    asked: list[str] = []

    def differ(one: Slice, other: Slice) -> bool:
        asked.append(one.instance)
        return False

    (stack,) = _arranged(paths, same_pixels=lambda one, other: True)
    assert (len(stack.slices), stack.refusal, stack.notes) == (4, None, {Note.SENT_TWICE})
    assert [one.plane.position[2] for one in stack.slices if one.plane is not None] == [0, 2, 4, 6]
    assert _refusal(_arranged(paths, same_pixels=differ)) is Unstackable.DUPLICATE_POSITION
    assert len(asked) == 1


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
    stacks = _arranged([*paths, larger])
    assert [len(stack.slices) for stack in stacks] == [4, 3, 3, 2, 1]
    assert [stack.refusal is None for stack in stacks] == [True, True, True, True, False]
    assert stacks[0].left_out == 1


# A series is read whole, or refused: never a piece of it as if it were all.

CUT: dict[str, dict[str, Any]] = {
    "ImageType": {"ImageType": ["ORIGINAL", "PRIMARY", "M", "DIS2D"]},
    "DERIVED": {"ImageType": ["DERIVED", "PRIMARY"]},
    "FrameOfReferenceUID": {"FrameOfReferenceUID": "1.8"},
    "SliceThickness": {"SliceThickness": 3},
    "InversionTime": {"InversionTime": 2500.1},
    "StackID": {"StackID": "2"},
    "orientation noise": {"ImageOrientationPatient": [0.99998, 0.0061, 0, -0.0061, 0.99998, 0]},
}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
@pytest.mark.parametrize("order", [range(10), (0, 3, 5, 1, 8, 2, 9, 7, 6, 4)], ids=["block", "scattered"])
def test_a_series_cut_by_an_attribute_is_one_volume(tmp_path: Path, cut: dict[str, Any], order: Sequence[int]) -> None:
    whole = {"InversionTime": 2500.0, "StackID": "1", "ImageType": ["ORIGINAL", "PRIMARY", "M"]}
    paths = [_write(tmp_path, n, (0, 0, 2.0 * n), **whole | (cut if k >= 6 else {})) for k, n in enumerate(order)]
    (stack,) = _arranged(paths)
    assert (len(stack.slices), stack.refusal) == (10, None)
    assert _spacing_mm(read_volume(stack))[0] == pytest.approx(2.0)
    assert stack.notes & {Note.SLICES_DIFFER, Note.SLICES_OF_TWO_THICKNESSES, Note.SLICES_WANDER}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
def test_a_series_cut_where_its_spacing_changes_is_refused_whole(tmp_path: Path, cut: dict[str, Any]) -> None:
    """As GE's head CT of 4 mm and 7 mm, of which either half looks good alone."""
    whole = {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "StackID": "1", "InversionTime": 2500.0}
    places = [*(4.0 * n for n in range(8)), *(32.0 + 7.0 * n for n in range(8))]
    paths = [_write(tmp_path, n, (0, 0, z), **whole | (cut if n >= 8 else {})) for n, z in enumerate(places)]
    assert _refusal(_arranged(paths)) is Unstackable.UNEVEN_SPACING


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
def test_every_second_slice_is_not_a_series_of_twice_the_spacing(tmp_path: Path, cut: dict[str, Any]) -> None:
    paths = [_write(tmp_path, n, (0, 0, 2.0 * n), **(cut if n % 2 else {})) for n in range(12) if n != 5]
    assert _refusal(_arranged(paths)) is Unstackable.SLICES_MISSING


def test_alternatives_that_show_the_same_places_stay_apart(tmp_path: Path) -> None:
    """Magnitude and phase; and original and corrected."""
    kinds = (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])
    paths = [
        _write(tmp_path, 20 * k + n, (0, 0, 2.0 * n), ImageType=kind, FrameOfReferenceUID=f"1.{20 * k + n}")
        for k, kind in enumerate(kinds)
        for n in range(6)
    ]
    stacks = _arranged(paths)
    assert [(len(stack.slices), stack.refusal) for stack in stacks] == [(6, None)] * 2
    first, second = ({one.kind for one in stack.slices} for stack in stacks)
    assert len(first) == len(second) == 1
    assert first != second


def test_a_scout_in_the_same_direction_is_none_of_the_volume(tmp_path: Path) -> None:
    paths = [_write(tmp_path, n, (0, 0, 2.0 * n), ImageType=["ORIGINAL", "PRIMARY", "AXIAL"]) for n in range(5)]
    paths += [_write(tmp_path, 9, (0, 0, 3.0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])]
    stack, scout = _arranged(paths)
    assert (len(stack.slices), stack.refusal, stack.left_out, len(scout.slices)) == (5, None, 0, 1)


@pytest.mark.parametrize(
    "cut", [{"Rows": 6, "Columns": 2}, {"PixelSpacing": [0.6, 0.3]}, {"ImagePositionPatient": None}]
)
def test_pieces_of_other_matrices_or_without_position_make_no_series(tmp_path: Path, cut: dict[str, Any]) -> None:
    paths = [_write(tmp_path, n, (0, 0, 2.0 * n), **(cut if n >= 10 else {})) for n in range(16)]
    reasons = {str(stack.refusal.reason) for stack in _arranged(paths) if stack.refusal is not None}
    assert reasons == {Unstackable.SERIES_IN_PIECES}
    assert all(stack.refusal is not None for stack in _arranged(paths))


def test_directions_that_differ_by_more_than_noise_are_refused_whole(tmp_path: Path) -> None:
    """A slice's corner must not move by half a voxel; half of the slices are no answer."""
    paths = [_write_large(tmp_path, n, (0, 0, 1.0 * n), _turned(degrees=2.0 if n % 2 else 0.0)) for n in range(10)]
    assert _refusal(_arranged(paths)) is Unstackable.UNEVEN_DIRECTION
    near = [_write_large(tmp_path, n, (0, 0, 1.0 * n), _turned(degrees=0.1 if n % 2 else 0.0)) for n in range(10)]
    (stack,) = _arranged(near)
    assert (len(stack.slices), stack.refusal, stack.notes) == (10, None, {Note.SLICES_WANDER})


def _turned(degrees: float) -> list[float]:
    c, s = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    return [round(value, 6) for value in (c, s, 0.0, -s, c, 0.0)]


def _write_large(folder: Path, number: int, position: Sequence[float], orientation: list[float]) -> Path:
    return write(
        folder / f"large{number}.dcm",
        np.zeros((200, 200), np.int16),
        SOPInstanceUID=f"1.2.4.{number}",
        ImageOrientationPatient=orientation,
        ImagePositionPatient=[float(value) for value in position],
        PixelSpacing=[1.0, 1.0],
        FrameOfReferenceUID="1.9",
    )


# Rounded positions


@pytest.mark.parametrize("step", [1.25, 0.625, 0.7, 2.75])
@pytest.mark.parametrize("normal", [(0, 0, 1), (0.3, -0.2, 0.933)])
def test_positions_with_one_decimal_are_the_spacing_that_they_mean(
    tmp_path: Path, step: float, normal: tuple[float, float, float]
) -> None:
    way = np.array(normal) / np.linalg.norm(normal)
    across = np.cross(way, (0, 1, 0))
    across /= np.linalg.norm(across)
    orientation = [*across.tolist(), *np.cross(way, across).tolist()]
    paths = [
        _write(
            tmp_path,
            n,
            (0, 0, 0),
            ImagePositionPatient=[f"{value:.1f}" for value in -32.03 + step * n * way],
            ImageOrientationPatient=[f"{value:.7f}" for value in orientation],
            SliceThickness=step,
        )
        for n in range(32)
    ]
    (stack,) = _arranged(paths)
    assert stack.refusal is None
    assert _spacing_mm(read_volume(stack))[0] == pytest.approx(step, abs=0.005)


@settings(max_examples=200, deadline=None)
@given(step=st.floats(0.5, 8), first=st.floats(-300, 300), number=st.integers(4, 60), decimals=st.integers(1, 4))
def test_even_positions_stay_even_however_they_are_rounded(
    step: float, first: float, number: int, decimals: int
) -> None:
    offsets = np.array([round(first + step * n, decimals) for n in range(number)])
    assert even(offsets, 0.5 * 10**-decimals)
    assert missing(offsets, 0.5 * 10**-decimals) == 0


@settings(max_examples=200, deadline=None)
@given(step=st.floats(0.5, 8), number=st.integers(6, 40), decimals=st.integers(1, 4), data=st.data())
def test_a_hole_is_a_hole_however_positions_are_rounded(
    step: float, number: int, decimals: int, data: st.DataObject
) -> None:
    gone = data.draw(st.integers(2, number - 3))
    offsets = np.array([round(step * n, decimals) for n in range(number) if n != gone])
    assert not even(offsets, 0.5 * 10**-decimals)
    assert missing(offsets, 0.5 * 10**-decimals) == 1


def test_rounding_excuses_no_more_than_the_digits_say() -> None:
    places = np.array([0, 2.0, 4.0, 7.1, 9.0])
    assert not even(places, 0.05)
    assert even(np.array([0, 1.2, 2.5, 3.8, 5.0]), 0.05)
    assert not even(np.array([0, 1.2, 2.5, 3.8, 5.0]), 0.0005), "written with three decimals they are what they are"
    assert not even(np.array([0, 4.0, 8.0, 12.0, 19.0]), 0.05)


def test_a_tilted_gantry_is_noticed_and_the_affine_is_sheared(tmp_path: Path) -> None:
    shift = 2 * np.tan(np.radians(15))
    paths = [_write(tmp_path, n, (0, shift * n, 2.0 * n), GantryDetectorTilt=15) for n in range(4)]
    (stack,) = _arranged(paths)
    assert stack.notes == {Note.TILTED_GANTRY}
    volume = read_volume(stack)
    np.testing.assert_allclose(volume.affine[:3, 0], [0, shift, 2])
    assert np.diff(stack.offsets_mm) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("attributes", "notes"),
    [
        ({"SliceThickness": 1}, {Note.GAPS_BETWEEN_SLICES}),
        ({"SliceThickness": 1.5}, set()),
        ({"SliceThickness": 3}, set()),
        ({"SliceThickness": None}, set()),
        ({"SpacingBetweenSlices": 2}, set()),
        ({"SpacingBetweenSlices": 5}, {Note.SPACING_NOT_AS_DECLARED}),
        ({"SliceThickness": 2, "SpacingBetweenSlices": 0.2}, {Note.SPACING_NOT_AS_DECLARED}),
        ({"ImagesInAcquisition": 4}, set()),
        ({"ImagesInAcquisition": 6}, {Note.FEWER_SLICES_THAN_DECLARED}),
        ({"FrameOfReferenceUID": None}, set()),
    ],
)
def test_what_is_odd_is_told_and_read(tmp_path: Path, attributes: dict[str, object], notes: set[Note]) -> None:
    (stack,) = _arranged([_write(tmp_path, n, (0, 0, 2.0 * n), **attributes) for n in range(4)])
    assert (stack.refusal, stack.notes) == (None, notes)


def test_every_second_slice_missing_is_seen_by_what_the_header_says(tmp_path: Path) -> None:
    whole = {"SliceThickness": 2, "SpacingBetweenSlices": 2}
    paths = [_write(tmp_path, n, (0, 0, 4.0 * n), **whole) for n in range(5)]
    assert _refusal(_arranged(paths)) is Unstackable.SLICES_MISSING


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": [1.0, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [0.0, 0, 0, 0, 0, 0]},
        {"PixelSpacing": [0, 0]},
    ],
)
def test_frames_without_a_place_make_no_stack(tmp_path: Path, attributes: dict[str, object]) -> None:
    assert _arranged([_write(tmp_path, n, (0, 0, 2.0 * n), **attributes) for n in range(2)]) == ()


def test_different_units_make_no_volume(tmp_path: Path) -> None:
    paths = [_write(tmp_path, n, (0, 0, 2.0 * n), RescaleType="HU" if n else "OD") for n in range(3)]
    with pytest.raises(NoVolume, match="MIXED_UNITS: HU and OD"):
        read_volume(_arranged(paths)[0])


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
    (stack,) = _arranged([_enhanced(tmp_path / "a.dcm", [2, 0, 3, 1])])
    volume = read_volume(stack)
    np.testing.assert_array_equal(volume.values, [PIXELS + n for n in range(4)])
    assert stack.notes == frozenset()


def test_a_reader_of_ones_own_may_decode(tmp_path: Path) -> None:
    (stack,) = _arranged([_write(tmp_path, n, (0, 0, 2.0 * n)) for n in range(3)])
    with Decoder() as decoder:
        there = read_volume(stack, decoder.read_values)
    np.testing.assert_array_equal(there.values, read_volume(stack).values)


def test_a_real_ct_series_stacks() -> None:
    paths = [path for path in bundled("dicomdirtests/DICOMDIR").parent.glob("98892001/CT5N/*") if path.is_file()]
    volume = read_volume(_arranged(paths)[0])
    assert (volume.values.shape, volume.unit) == ((5, 16, 16), "HU")
    assert _spacing_mm(volume) == pytest.approx((2.5, 0.488281, 0.488281))


# Padding


@pytest.mark.parametrize(
    "padding",
    [
        {"PixelPaddingValue": -2000},
        {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990},
        {"PixelPaddingValue": -1990, "PixelPaddingRangeLimit": -2000},
    ],
)
def test_padding_is_air_and_not_imaged(tmp_path: Path, padding: dict[str, int]) -> None:
    for n in range(3):
        stored = PIXELS.copy()
        stored[0, 0], stored[2, 3] = -2000, -1995 if len(padding) == 2 else -2000
        write(
            tmp_path / f"{n}.dcm",
            stored,
            SOPInstanceUID=f"1.2.{n}",
            SOPClassUID=CTImageStorage,
            ImageOrientationPatient=AXIAL,
            ImagePositionPatient=[0.0, 0, 2.0 * n],
            PixelSpacing=[0.5, 0.25],
            RescaleSlope=1,
            RescaleIntercept=-24,
            **padding,
        )
    (stack,) = _arranged(sorted(tmp_path.glob("*.dcm")))
    volume = read_volume(stack)
    assert volume.imaged is not None
    assert (volume.values[:, 0, 0] == -1000).all()
    assert not volume.imaged[:, 0, 0].any()
    assert volume.imaged.sum() == volume.imaged.size - 6
    np.testing.assert_array_equal(volume.values[0, 0, 1:], PIXELS[0, 1:] - 24.0)
    with Decoder() as decoder:
        there = read_volume(stack, decoder.read_values)
    np.testing.assert_array_equal(there.values, volume.values)


def test_padding_written_under_the_wrong_sign_is_padding(tmp_path: Path) -> None:
    path = _write(tmp_path, 1, (0, 0, 0))
    dataset = dcmread(path)
    dataset.PixelData = (np.full((3, 4), -2000, np.int16) + (PIXELS > 5) * 2000).astype("<i2").tobytes()
    dataset.add_new(0x00280120, "US", 63536)
    dataset.save_as(path)
    padded = read_values(path).padded
    assert padded is not None
    np.testing.assert_array_equal(padded, PIXELS <= 5)


def test_padding_of_an_image_without_unit_becomes_its_lowest_value(tmp_path: Path) -> None:
    kind = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "RescaleSlope": None, "RescaleIntercept": None}
    paths = [_write(tmp_path, n, (0, 0, 2.0 * n), PixelPaddingValue=13, **kind) for n in range(3)]
    volume = read_volume(_arranged(paths)[0])
    assert (volume.values[2, 2, 3], volume.values[1, 2, 3]) == (0.0, 12.0)
