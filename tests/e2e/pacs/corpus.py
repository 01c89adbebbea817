"""About forty files for an archive: phantoms, and pydicom's test files of many transfer syntaxes with new UIDs."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file

from tasks.breast_ultrasound import TASK
from tasks.phantoms.dicom_writer import uid
from tasks.task import PhantomHospital

_BUNDLED = (
    "CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "JPEG2000.dcm", "JPEG2000_UNC.dcm",
    "JPGExtended.dcm", "JPEG-lossy.dcm", "examples_ybr_color.dcm", "examples_jpeg2k.dcm", "examples_palette.dcm",
    "examples_rgb_color.dcm", "ExplVR_BigEnd.dcm", "image_dfl.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle_2frame.dcm",
    "SC_rgb_small_odd_jpeg.dcm", "emri_small_RLE.dcm", "emri_small_jpeg_ls_lossless.dcm", "emri_small_big_endian.dcm",
    "color-px.dcm", "693_J2KR.dcm", "693_J2KI.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm",
)  # fmt: skip


def fill(folder: Path) -> list[Path]:
    """Write ``dicom/*.dcm`` and a ``labels.csv`` that names every file; the pixels' bytes stay as they are bundled."""
    hospital = PhantomHospital("alder", patients=8, images_per_patient=(2, 3))
    TASK.draw_phantom(folder / "drawn", hospital, 0)
    paths = []
    drawn = [path for path in sorted((folder / "drawn" / "dicom").rglob("*.dcm")) if not _outlines(path)]
    for number, path in enumerate(drawn + _bundled()):
        dataset = dcmread(path)
        if number % 2 == 0 or not dataset.get("PatientID"):
            dataset.PatientID = f"E2E-{number:03d}"
        dataset.setdefault("Modality", "OT")
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, uid("e2e", number, keyword))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        place = folder / "dicom" / f"{number:03d}-{path.name}"
        place.parent.mkdir(exist_ok=True)
        dataset.save_as(place, enforce_file_format=True)
        paths.append(place)
    rows = [f"{dcmread(path, stop_before_pixels=True).SOPInstanceUID},{n % 2}" for n, path in enumerate(paths)]
    (folder / "labels.csv").write_text("\n".join(["SOPInstanceUID,label", *rows, ""]), "utf-8")
    return paths


def _outlines(path: Path) -> bool:
    """Whether it is a segmentation, which is no image that anybody labels."""
    return str(dcmread(path, stop_before_pixels=True).Modality) == "SEG"


def _bundled() -> list[Path]:
    found = [get_testdata_file(name, download=False) for name in _BUNDLED]
    return [Path(path) for path in found if isinstance(path, str)]
