"""Labels from FHIR: what a DiagnosticReport concludes, or an Observation measures, of a study or a patient.

Resources are read as the JSON that servers and bulk exports give (R4, R4B and R5); nothing is fetched. References are
followed within the files: by ``fullUrl``, by ``Type/id`` at the end of an address, and in ``contained``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from client.errors import SiteMisconfigured
from client.sources.settings import FhirLabels
from client.sources.text_file import text_of

_SYSTEMS = {
    "http://snomed.info/sct": "SCT",
    "http://loinc.org": "LN",
    "http://dicom.nema.org/resources/ontology/DCM": "DCM",
    "http://radlex.org": "RADLEX",
    "http://hl7.org/fhir/sid/icd-10": "I10",
    "http://hl7.org/fhir/sid/icd-10-cm": "I10C",
    "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation": "INTERPRETATION",
}
"""FHIR's addresses of code systems, and DICOM's designators for them (PS3.16 table 8-1)."""
_UCUM = "http://unitsofmeasure.org"
_DICOM_UID = "urn:dicom:uid"
_FINAL = {"final", "amended", "corrected", "appended"}
_READ = ("DiagnosticReport", "Observation")
_TO_STUDIES = ("study", "imagingStudy", "partOf", "derivedFrom")

Resource = Mapping[str, Any]


def labels_of_fhir(source: FhirLabels, files: Sequence[Path], left_out: Counter[str]) -> Iterator[tuple[str, int]]:
    """The value of the source's key, and the label, once for each study or patient of each resource.

    Counted: ``FHIR_UNREADABLE`` (a file, or a line of a bulk export), ``REPORT_NOT_FINAL``, ``REPORT_WITHOUT_LABEL``,
    ``REPORT_OF_OTHER_UNIT``, ``REPORT_WITHOUT_SUBJECT``: what it refers to is not there or names no such key.
    """
    yield from labels_in(source, list(_resources(files, left_out)), left_out)


def labels_in(
    source: FhirLabels, resources: Sequence[tuple[str, Resource]], left_out: Counter[str]
) -> Iterator[tuple[str, int]]:
    """The same of resources that have been read, each with its address or ""."""
    known = _by_reference(resources)
    for _, one in resources:
        if one.get("resourceType") not in _READ or not _is_asked(one, source):
            continue
        if one.get("status") not in _FINAL:
            left_out["REPORT_NOT_FINAL"] += 1
            continue
        label = _label(one, source, left_out)
        keys = sorted(set(_keys(one, source, known)))
        left_out["REPORT_WITHOUT_SUBJECT"] += label is not None and not keys
        yield from ((key, label) for key in keys if label is not None)


def _resources(files: Sequence[Path], left_out: Counter[str]) -> Iterator[tuple[str, Resource]]:
    """Every resource with the ``fullUrl`` that a bundle gives it, "" for none; entries of bundles one by one."""
    for path in files:
        if path.suffix.lower() not in (".json", ".ndjson"):
            continue
        try:
            text = text_of(path)
        except SiteMisconfigured:
            left_out["FHIR_UNREADABLE"] += 1
            continue
        for part in text.splitlines() if path.suffix.lower() == ".ndjson" else [text]:
            if part.strip():
                yield from _parsed(part, left_out)


def _parsed(text: str, left_out: Counter[str]) -> Iterator[tuple[str, Resource]]:
    try:
        resource = json.loads(text)
        found = list(_entries(resource))
    except (ValueError, RecursionError, AttributeError, TypeError):
        left_out["FHIR_UNREADABLE"] += 1
        return
    yield from found


def _entries(resource: Resource) -> Iterator[tuple[str, Resource]]:
    if resource.get("resourceType") != "Bundle":
        yield "", resource
        return
    for entry in resource.get("entry") or ():
        if isinstance(inner := entry.get("resource"), Mapping):
            yield str(entry.get("fullUrl") or ""), inner


def _by_reference(resources: Sequence[tuple[str, Resource]]) -> dict[str, Resource]:
    """Resources by each address that a reference may have."""
    known: dict[str, Resource] = {}
    for url, one in resources:
        for address in (url, f"{one.get('resourceType')}/{one.get('id')}"):
            if address:
                known.setdefault(address, one)
    return known


def _is_asked(one: Resource, source: FhirLabels) -> bool:
    return source.code is None or source.code in _codes(one.get("code"))


def _codes(concept: Any) -> list[str]:
    """The codings of a CodeableConcept as ``DESIGNATOR:CODE``; a system without designator by its address."""
    codings = concept.get("coding") if isinstance(concept, Mapping) else None
    return [
        f"{_SYSTEMS.get(coding.get('system', ''), coding.get('system', ''))}:{coding.get('code', '')}"
        for coding in _mappings(codings)
    ]


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; of a broken resource none."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _label(one: Resource, source: FhirLabels, left_out: Counter[str]) -> int | None:
    """0, 1, or ``None`` if the resource says neither, or both; then it is counted."""
    if source.at_least is not None:
        return _measured(one.get("valueQuantity"), source, left_out)
    concepts = [*_mappings(one.get("conclusionCode")), *_mappings(one.get("interpretation"))]
    # R5 wraps a conclusion in a CodeableReference.
    concepts += [
        inner for each in _mappings(one.get("conclusionCode")) if isinstance(inner := each.get("concept"), Mapping)
    ]
    concepts += [value] if isinstance(value := one.get("valueCodeableConcept"), Mapping) else []
    said = {code for concept in concepts for code in _codes(concept)}
    labels = {1 for code in source.positive if code in said} | {0 for code in source.negative if code in said}
    left_out["REPORT_WITHOUT_LABEL"] += len(labels) != 1
    return labels.pop() if len(labels) == 1 else None


def _measured(quantity: Any, source: FhirLabels, left_out: Counter[str]) -> int | None:
    value = quantity.get("value") if isinstance(quantity, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or quantity.get("comparator"):
        left_out["REPORT_WITHOUT_LABEL"] += 1
        return None
    if quantity.get("system", _UCUM) != _UCUM or quantity.get("code") != source.unit:
        left_out["REPORT_OF_OTHER_UNIT"] += 1
        return None
    assert source.at_least is not None
    return int(value >= source.at_least)


def _keys(one: Resource, source: FhirLabels, known: Mapping[str, Resource]) -> Iterator[str]:
    """What the resource speaks of, by the source's key."""
    if source.key == "PatientID":
        patient = _target(one.get("subject"), one, known)
        yield from _patient_ids(patient, one.get("subject"), source)
        return
    if source.key == "AccessionNumber":
        yield from _accessions(_mappings(one.get("identifier")))
        for order in _targets(one.get("basedOn"), one, known):
            yield from _accessions(_mappings(order.get("identifier")))
    for name in _TO_STUDIES:
        for reference in _references(one.get(name)):
            study = _target(reference, one, known)
            identifiers = _mappings(study.get("identifier")) + _mappings([reference.get("identifier")])
            if study and study.get("resourceType") != "ImagingStudy":
                continue
            yield from _accessions(identifiers) if source.key == "AccessionNumber" else _uids(identifiers)


def _references(value: Any) -> list[Mapping[str, Any]]:
    return _mappings(value if isinstance(value, list) else [value])


def _targets(value: Any, one: Resource, known: Mapping[str, Resource]) -> Iterator[Resource]:
    yield from (target for reference in _references(value) if (target := _target(reference, one, known)))


def _target(reference: Any, one: Resource, known: Mapping[str, Resource]) -> Resource:
    """The resource that a reference leads to; empty if it is not there."""
    text = reference.get("reference") if isinstance(reference, Mapping) else None
    if not isinstance(text, str) or not text:
        return {}
    if text.startswith("#"):
        inside = _mappings(one.get("contained"))
        return next((each for each in inside if each.get("id") == text[1:]), {})
    plain = text.partition("/_history/")[0]
    return known.get(plain) or known.get("/".join(plain.rsplit("/", 2)[-2:]), {})


def _patient_ids(patient: Resource, reference: Any, source: FhirLabels) -> Iterator[str]:
    identifiers = _mappings(patient.get("identifier"))
    if not identifiers and isinstance(reference, Mapping):
        identifiers = _mappings([reference.get("identifier")])
    if source.patient_system:
        identifiers = [one for one in identifiers if one.get("system") == source.patient_system]
    elif len(identifiers) > 1:
        identifiers = [one for one in identifiers if _is_of_type(one, "MR")]
    if len(identifiers) == 1:
        yield from _values(identifiers)


def _accessions(identifiers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from _values([one for one in identifiers if _is_of_type(one, "ACSN")])


def _is_of_type(identifier: Mapping[str, Any], code: str) -> bool:
    kind = identifier.get("type")
    return any(coding.rpartition(":")[2] == code for coding in _codes(kind))


def _uids(identifiers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in _values([one for one in identifiers if one.get("system") == _DICOM_UID]):
        yield one.removeprefix("urn:oid:")


def _values(identifiers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from (str(one["value"]).strip() for one in identifiers if str(one.get("value") or "").strip())
