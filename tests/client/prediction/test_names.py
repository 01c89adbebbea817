"""Names of a prediction's objects follow from what was read, and from nothing else."""

from __future__ import annotations

from pathlib import Path

from client.prediction.names import ObjectNames
from tests.client.sources import small_hospital

KEY = b"k" * 32


def test_a_name_follows_from_model_images_and_pixels(tmp_path: Path) -> None:
    paths = small_hospital.fill(tmp_path)[:2]
    read = [(path, str(number), 0) for number, path in enumerate(paths)]
    names = ObjectNames(KEY, "a" * 64)
    name = names.instance("report", read)
    assert name == ObjectNames(KEY, "a" * 64).instance("report", [*reversed(read), *read])
    others = {
        ObjectNames(KEY, "b" * 64).instance("report", read),
        ObjectNames(b"o" * 32, "a" * 64).instance("report", read),
        names.instance("outline", read),
        names.instance("report", read[:1]),
        names.instance("report", [(path, uid, 1) for path, uid, _ in read]),
        names.instance("report", read, "part"),
    }
    assert len(others | {name}) == 7
    content = paths[0].read_bytes()
    paths[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert ObjectNames(KEY, "a" * 64).instance("report", read) != name


def test_a_file_that_is_not_whole_has_a_name_as_well(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"no preamble")
    names = ObjectNames(KEY, "a" * 64)
    assert names.instance("report", [(tmp_path / "odd", "1", 0)]).startswith("2.25.")
    assert names.series("SR", "1.2") != names.series("SEG", "1.2")
