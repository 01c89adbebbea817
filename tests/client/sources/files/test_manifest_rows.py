"""What is wrong with a manifest is said at once, by words and lines."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from client.errors import SiteMisconfigured
from client.sources.files.manifest_rows import manifest_rows
from client.sources.settings import ManifestSource
from tasks.breast_ultrasound import TASK


def _source(folder: Path, text: str, **settings: object) -> ManifestSource:
    (folder / "manifest.csv").write_text(text, "utf-8")
    values = {"kind": "manifest", "task": TASK.name, "issuer": "set", "path": folder}
    return ManifestSource.model_validate(values | settings)


def test_all_missing_columns_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    source = _source(tmp_path, "image,case,diagnosis\n", split_column="part")
    with pytest.raises(
        SiteMisconfigured, match=r"lacks the column\(s\) file, label, part, patient_id; it has image, case"
    ):
        manifest_rows(source, TASK)


def test_words_without_a_meaning_are_counted_once_each(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,P{n},{'normal' if n % 2 else 'cancer'},fold{n % 3}\n" for n in range(100))
    source = _source(tmp_path, f"file,patient_id,label,part\n{rows}", split_column="part")
    with pytest.raises(SiteMisconfigured) as refusal:
        manifest_rows(source, TASK)
    text = str(refusal.value)
    assert "'cancer' (50, first in line 2), 'normal' (50, first in line 3)" in text
    assert "'fold0' (34, first in line 2), 'fold1' (33, first in line 3), 'fold2' (33, first in line 4)" in text
    assert len(text) < 1000


def test_several_kinds_of_fault_are_told_at_once(tmp_path: Path) -> None:
    text = "file,patient_id,label,part\n../a.png,P1,0,train\n/etc/passwd,P1,1,test\nb.png,P2,maybe,train\n"
    with pytest.raises(SiteMisconfigured) as refusal:
        manifest_rows(_source(tmp_path, text, split_column="part"), TASK)
    for part in (
        "line 2: '../a.png'",
        "line 3: '/etc/passwd'",
        "'maybe' (1, first in line 4)",
        "'P1': leave_out, train",
    ):
        assert part in str(refusal.value)


def test_words_of_the_source_go_before_the_tasks_and_case_does_not_matter(tmp_path: Path) -> None:
    text = "file,patient_id,label\na.png,P1, Malignant \nb.png,P2,BENIGN\nc.png,P3,1\nd.png,P4,\ne.png,P5,Normal\n"
    rows = manifest_rows(
        _source(tmp_path, text, negative=["1", "malignant"], positive=["benign"], left_out_labels=["normal"]), TASK
    )
    assert [(row.label, row.left_out) for row in rows] == [
        (0, False), (1, False), (0, False), (None, False), (None, True)
    ]  # fmt: skip
    with pytest.raises(ValidationError, match=r"name \['benign'\] more than once"):
        _source(tmp_path, text, positive=["benign"], negative=["Benign "])


_CELL = st.sampled_from(["train", "test", "val", "", "TRAIN"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), _CELL), min_size=1, max_size=20))
def test_a_patient_is_on_one_side_or_the_set_is_refused(tmp_path: Path, cells: list[tuple[int, str]]) -> None:
    rows = "".join(f"{n}.png,P{patient},0,{part}\n" for n, (patient, part) in enumerate(cells))
    source = _source(tmp_path, f"file,patient_id,label,part\n{rows}", split_column="part")
    parts = {patient: {part.lower() for p, part in cells if p == patient and part} for patient, _ in cells}
    if any(len(some) > 1 for some in parts.values()):
        with pytest.raises(SiteMisconfigured, match="several parts"):
            manifest_rows(source, TASK)
        return
    found = manifest_rows(source, TASK)
    for patient, some in parts.items():
        mine = Counter((row.side, row.held_out) for row in found if row.patient == f"P{patient}")
        assert len(mine) == 1, "every row of a patient has the patient's side"
        ((side, held_out),) = mine
        assert (side, held_out) == {
            "train": ("train", False), "val": ("validation", False), "test": (None, True), "": (None, False)
        }[min(some, default="")]  # fmt: skip


def test_files_are_found_by_a_pattern_of_columns(tmp_path: Path) -> None:
    text = "file,patient_id,label\na (1),P1,benign\n"
    (row,) = manifest_rows(_source(tmp_path, text, file_pattern="images/{label}/{}.png"), TASK)
    assert row.file == "images/benign/a (1).png"
    with pytest.raises(SiteMisconfigured, match=r"lacks the column\(s\) part"):
        manifest_rows(_source(tmp_path, text, file_pattern="{part}/{}"), TASK)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [("x.png", "needs {} once"), ("{}{}", "needs {} once"), ("{}{0.a}", "may only have"), ("{}{a!r}", "may only have"),
     ("{}{a[0]}", "may only have"), ("{}{a:>9}", "may only have"), ("{", "for braces in a name")],
)  # fmt: skip
def test_a_pattern_has_names_of_columns_only(tmp_path: Path, pattern: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        _source(tmp_path, "file\n", file_pattern=pattern)
