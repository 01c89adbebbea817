"""One NIfTI file as a volume in the patient's space, or as the image of its middle slice.

Tested in ``tests/client/sources/files/test_nifti.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from client.sources.record import Unreadable
from tasks.task import Picture, Volume

MAX_VOXELS = 512 * 1024 * 1024
"""Larger volumes are refused before they are read; as float32 this many take 2 GiB."""
_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI counts towards Right, Anterior, Superior; DICOM to Left, Posterior


def is_nifti(path: Path) -> bool:
    """Whether a file is called like a NIfTI volume."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


class NiftiReader:
    """Reads one file on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def volume(self) -> Volume:
        """Values (slices, rows, columns) as an axial DICOM series has them, scaled by scl_slope and scl_inter.

        Axes are permuted and flipped so that slices count upwards, rows to posterior and columns to the patient's left;
        nothing is resampled. The affine leads to DICOM's patient coordinates in mm.

        Raises:
            Unreadable: NOT_NIFTI, NOT_A_VOLUME, TOO_LARGE, NO_ORIENTATION, DECODE_FAILED, NOT_FINITE or CONSTANT_IMAGE.
        """
        image = self._opened()
        turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(("L", "P", "S")))
        values = np.ascontiguousarray(apply_orientation(self._values(image), turn).transpose(2, 1, 0))
        to_patient = _TO_LPS @ image.affine @ inv_ornt_aff(turn, image.shape[:3])
        to_patient[:3] *= _MM[image.header.get_xyzt_units()[0]]
        affine = to_patient[:, [2, 1, 0, 3]]
        return Volume(values, affine)

    def picture(self) -> Picture:
        """The middle axial slice, grey over the declared range.

        The range is cal_min to cal_max where the header has it, else what the stored integers can express, else (for
        floats, which declare none) that of the volume's own values.

        Raises:
            Unreadable: as for ``volume``.
        """
        volume = self.volume()
        low, high = self._range(volume.values)
        middle = volume.values[volume.values.shape[0] // 2]
        grey = np.clip((middle - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)
        if grey.min() == grey.max():
            raise Unreadable("CONSTANT_IMAGE", str(self.path))
        _, rows, columns = np.linalg.norm(volume.affine[:3, :3], axis=0).tolist()
        return Picture(grey, (), (rows, columns))

    def _opened(self) -> Any:
        try:
            image = nib.load(self.path)
        except Exception as error:  # a broken file may provoke any error in a parser; each means the same to us
            raise Unreadable("NOT_NIFTI", f"{self.path}: {type(error).__name__}: {error}") from error
        if not isinstance(image, (nib.Nifti1Image, nib.Nifti2Image)):
            raise Unreadable("NOT_NIFTI", f"{self.path} is {type(image).__name__}")
        shape, kind = image.shape, image.get_data_dtype().kind
        if kind not in "iuf" or len(shape) < 3 or any(n != 1 for n in shape[3:]) or min(shape[:3]) < 1:
            raise Unreadable("NOT_A_VOLUME", f"{self.path}: shape {shape} of {image.get_data_dtype()}")
        if int(np.prod(shape, dtype=np.float64)) > MAX_VOXELS:
            raise Unreadable("TOO_LARGE", f"{self.path}: shape {shape}")
        if not image.header["sform_code"] and not image.header["qform_code"]:
            raise Unreadable("NO_ORIENTATION", f"{self.path}: neither sform nor qform gives the patient's orientation")
        if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12:
            raise Unreadable("NO_ORIENTATION", f"{self.path}: the affine has no inverse")
        return image

    def _values(self, image: Any) -> NDArray[np.float32]:
        try:
            values: NDArray[np.float32] = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(
                image.shape[:3]
            )
        except Exception as error:
            raise Unreadable("DECODE_FAILED", f"{self.path}: {type(error).__name__}: {error}") from error
        if not np.isfinite(values).all():
            raise Unreadable("NOT_FINITE", str(self.path))
        if values.min() == values.max():
            raise Unreadable("CONSTANT_IMAGE", str(self.path))
        return values

    def _range(self, values: NDArray[np.float32]) -> tuple[float, float]:
        image = self._opened()
        low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
        if low < high:
            return low, high
        stored = image.get_data_dtype()
        if stored.kind == "f":
            return float(values.min()), float(values.max())
        limits, slope, inter = np.iinfo(stored), image.dataobj.slope, image.dataobj.inter
        ends = limits.min * slope + inter, limits.max * slope + inter
        return float(min(ends)), float(max(ends))
