"""Labels from FHIR: codes and quantities of final reports, joined by study, accession or patient."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from client.errors import SiteMisconfigured
from client.sources.labels.annotations import read_annotations
from client.sources.labels.fhir import _parsed, labels_in
from client.sources.settings import Annotations

SNOMED, LOINC = "http://snomed.info/sct", "http://loinc.org"
BOTH = {"positive": ["SCT:86049000"], "negative": ["SCT:3898006"]}
ADAPTER: TypeAdapter[Any] = TypeAdapter(Annotations)


def _concept(code: str, system: str = SNOMED) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def _study(number: int) -> dict[str, Any]:
    accession = {"type": _concept("ACSN", "http://terminology.hl7.org/CodeSystem/v2-0203"), "value": f"A{number}"}
    uid = {"system": "urn:dicom:uid", "value": f"urn:oid:1.2.{number}"}
    return {"resourceType": "ImagingStudy", "id": f"s{number}", "identifier": [uid, accession]}


def _report(number: int, code: str, **more: Any) -> dict[str, Any]:
    report = {
        "resourceType": "DiagnosticReport",
        "id": f"r{number}",
        "status": "final",
        "code": _concept("36319-2", LOINC),
        "imagingStudy": [{"reference": f"ImagingStudy/s{number}"}],
        "subject": {"reference": f"https://fhir.example/Patient/p{number}/_history/3"},
        "conclusionCode": [_concept(code)],
    }
    return report | more


def _patient(number: int, *identifiers: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": f"p{number}", "identifier": list(identifiers) or [{"value": f"P{number}"}]}


def _read(folder: Path, *resources: dict[str, Any], **settings: Any) -> tuple[dict[str, int], Counter[str]]:
    (folder / "all.ndjson").write_text("\n".join(map(json.dumps, resources)), "utf-8")
    said = {"kind": "fhir", "path": folder, "key": "StudyInstanceUID"} | (BOTH | settings)
    labels = read_annotations(ADAPTER.validate_python(said))
    assert labels.key == said["key"]
    return labels.values, +labels.left_out


@pytest.mark.parametrize(("key", "names"), [("StudyInstanceUID", "1.2."), ("AccessionNumber", "A"), ("PatientID", "P")])
def test_a_report_labels_its_study_accession_or_patient(tmp_path: Path, key: str, names: str) -> None:
    both = [one for n in (1, 2) for one in (_study(n), _patient(n))]
    reports = [_report(1, "86049000"), _report(2, "3898006")]
    values, left_out = _read(tmp_path, *both, *reports, key=key)
    assert values == {f"{names}1": 1, f"{names}2": 0}
    assert not left_out


def test_only_final_reports_with_one_meaning_label(tmp_path: Path) -> None:
    resources = [
        *map(_study, range(1, 8)),
        _report(1, "86049000", status="preliminary"),
        _report(2, "86049000", status="entered-in-error"),
        _report(3, "86049000", status="amended"),
        _report(4, "999"),
        _report(5, "86049000", conclusionCode=[_concept("86049000"), _concept("3898006")]),
        _report(6, "3898006"),
        _report(6, "86049000"),
        _report(7, "86049000", conclusionCode=[_concept("86049000", "http://other")]),
        _report(8, "86049000"),
    ]
    values, left_out = _read(tmp_path, *resources)
    assert values == {"1.2.3": 1}
    assert left_out == {
        "REPORT_NOT_FINAL": 2, "REPORT_WITHOUT_LABEL": 3, "CONTRADICTING_LABEL_ROWS": 1, "REPORT_WITHOUT_SUBJECT": 1
    }  # fmt: skip


def test_the_same_in_a_bundle_with_contained_studies_and_in_r5(tmp_path: Path) -> None:
    r5 = _report(
        1, "x", conclusionCode=[{"concept": _concept("86049000")}], study=[{"reference": "#s"}], imagingStudy=[]
    )
    r5["contained"] = [_study(1) | {"id": "s"}]
    by_url = _report(2, "3898006", imagingStudy=[{"reference": "urn:uuid:5"}])
    logical = _report(
        3, "3898006", imagingStudy=[{"identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}}]
    )
    entries = [("urn:uuid:5", _study(2)), ("", by_url), ("", r5), ("", logical)]
    bundle = {"resourceType": "Bundle", "entry": [{"fullUrl": url, "resource": one} for url, one in entries]}
    (tmp_path / "b.json").write_text(json.dumps(bundle), "utf-8")
    assert _read(tmp_path, _study(9))[0] == {"1.2.1": 1, "1.2.2": 0, "1.2.3": 0}


def test_quantities_count_in_the_unit_that_is_said(tmp_path: Path) -> None:
    def observed(number: int, **quantity: Any) -> dict[str, Any]:
        value = {"system": "http://unitsofmeasure.org", "code": "mm"} | quantity
        one = {
            "resourceType": "Observation",
            "status": "final",
            "code": _concept("33728-7", LOINC),
            "valueQuantity": value,
        }
        return one | {"partOf": [{"reference": f"ImagingStudy/s{number}"}]}

    resources = [
        *map(_study, range(1, 7)),
        observed(1, value=20),
        observed(2, value=19.9),
        observed(3, value=2, code="cm"),
        observed(4, value=30, comparator="<"),
        observed(5, value="20"),
        observed(6, value=True),
    ]
    settings = {"positive": [], "negative": [], "at_least": 20, "unit": "mm", "code": "LN:33728-7"}
    values, left_out = _read(tmp_path, *resources, **settings)
    assert values == {"1.2.1": 1, "1.2.2": 0}
    assert left_out == {"REPORT_OF_OTHER_UNIT": 1, "REPORT_WITHOUT_LABEL": 3}


def test_a_patient_of_several_identifiers_needs_to_be_told_apart(tmp_path: Path) -> None:
    record = {"value": "17", "system": "urn:mrn", "type": _concept("MR", "v2")}
    insurance = {"value": "99", "system": "urn:insurance"}
    two = [
        _patient(1, insurance, record),
        _report(1, "86049000"),
        _patient(2, insurance, insurance),
        _report(2, "3898006"),
    ]
    assert _read(tmp_path, *two, key="PatientID") == ({"17": 1}, {"REPORT_WITHOUT_SUBJECT": 1})
    assert _read(tmp_path, *two[:2], key="PatientID", patient_system="urn:insurance")[0] == {"99": 1}


def test_what_labels_nothing_is_an_error_with_its_reasons(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"resourceType": "Bundle", "entry": 3}', "utf-8")
    (tmp_path / "gbk.json").write_bytes('{"良": 1}'.encode("gbk"))
    with pytest.raises(SiteMisconfigured, match=r"FHIR_UNREADABLE 2, REPORT_WITHOUT_SUBJECT 1"):
        _read(tmp_path, _report(1, "86049000"))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"at_least": 1.0, "positive": [], "negative": []}, "at_least and unit belong together"),
        ({"negative": []}, "set codes for both"),
        ({"negative": ["SCT:86049000"]}, "positive and negative at once"),
        ({"key": "SOPInstanceUID"}, "StudyInstanceUID"),
    ],
)
def test_settings_that_cannot_label_are_refused(tmp_path: Path, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ADAPTER.validate_python({"kind": "fhir", "path": tmp_path, "key": "PatientID"} | BOTH | settings)


_FIELDS = (
    *("resourceType", "id", "status", "code", "coding", "conclusionCode", "imagingStudy", "reference", "identifier"),
    *("entry", "resource", "contained", "interpretation", "concept", "type", "value", "system", "subject", "partOf"),
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.sampled_from(["#a", "a", "SCT", "final", "ImagingStudy/a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=6),
    max_leaves=30,
)


@given(st.lists(_JSON, max_size=3), st.sampled_from(["StudyInstanceUID", "AccessionNumber", "PatientID"]))
def test_no_json_breaks_the_reader(values: list[Any], key: str) -> None:
    left_out: Counter[str] = Counter()
    source = ADAPTER.validate_python({"kind": "fhir", "path": Path("x"), "key": key} | BOTH)
    found = [one for value in values for one in _parsed(json.dumps(value), left_out)]
    reports = [(url, dict(one) | {"resourceType": "Observation", "status": "final"}) for url, one in found]
    for name, label in labels_in(source, [*found, *reports], left_out):
        assert name
        assert label in (0, 1)
