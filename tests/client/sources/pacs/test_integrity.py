"""Digests without decoding, and files that are cut."""

import contextlib
import hashlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from client.sources.pacs.integrity import NotWhole, examine

BUNDLED = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))
CUT = {"MR_truncated.dcm", "SC_rgb_jpeg.dcm", "meta_missing_tsyntax.dcm"}
SMALL = [path for path in BUNDLED if path.stat().st_size < 50_000 and path.name not in CUT]


@pytest.mark.parametrize("path", [p for p in BUNDLED if p.name not in CUT], ids=lambda path: path.name)
def test_the_digest_is_that_of_the_value(path: Path) -> None:
    try:
        dataset = dcmread(path)
    except pydicom.errors.InvalidDicomError:
        pytest.skip("no DICOM file meta information")
    value = next(
        (dataset[n].value for n in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if n in dataset), None
    )
    evidence = examine(path)
    assert evidence.pixel_sha256 == ("" if value is None else hashlib.sha256(value).hexdigest())
    assert evidence.transfer_syntax == dataset.file_meta.TransferSyntaxUID
    assert evidence.sop_instance == str(dataset.get("SOPInstanceUID", ""))


@pytest.mark.parametrize("name", sorted(CUT))
def test_cut_files_are_told(name: str) -> None:
    path = next((p for p in BUNDLED if p.name == name), None)
    if path is None:
        pytest.skip(f"pydicom does not bring {name} along")
    with pytest.raises(NotWhole):
        examine(path)


@given(st.sampled_from(SMALL), st.data())
def test_no_damage_makes_it_crash(tmp_path_factory: pytest.TempPathFactory, path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    victim = tmp_path_factory.getbasetemp() / "victim.dcm"
    victim.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(NotWhole):  # any other error fails
        assert examine(victim).transfer_syntax
