"""The settings of a hospital's sources in ``site.yaml``.

Tested in ``tests/client/sources/files/test_manifest.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks import task as tasks


class Settings(BaseModel):
    """Base of all settings: a misspelt key is an error, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _no_nul(self) -> Self:
        if wrong := [name for name, value in self if isinstance(value, str | Path) and "\0" in str(value)]:
            raise ValueError(f"{', '.join(wrong)}: contains a NUL character, which no file or name can have")
        return self


def _known_task(name: str) -> str:
    if name not in tasks.names():
        raise ValueError(f"this release has no task {name!r}; it has {', '.join(tasks.names())}")
    return name


TaskName = Annotated[str, AfterValidator(_known_task)]


CodeText = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+:[A-Za-z0-9.-]+$")]
"""Coding scheme designator and code value, such as ``SCT:86049000``."""


class _Source(Settings):
    task: TaskName
    issuer: str
    """IssuerOfPatientID: patients of two issuers are different patients, even with the same number."""
    path: Path
    max_training_patients: int | None = Field(default=None, ge=1)
    """Train on at most this many patients; only to simulate a small hospital, and refused for any other: when a patient
    leaves, the next one takes the place, so that two patients differ between the cohorts instead of one."""
    organ_declared: str = ""
    """The organ in every image of this source, as the hospital confirms; used if a file does not say."""
    organ_words: dict[str, str] = Field(default_factory=dict)
    """The hospital's own values of BodyPartExamined and the organ each means, such as ``{MAMMO US: breast}``."""
    series_words: dict[str, list[str]] = Field(default_factory=dict)
    """By the name of a sequence of the task the hospital's own words in SeriesDescription, such as
    ``{T1ce: [轴位增强]}``. They go before how a series was acquired and what others call it."""
    burned_in_annotation: Literal["refuse", "accept"] = "refuse"
    """What becomes of images with BurnedInAnnotation YES. ``accept`` where the hospital has seen that what is burned in
    names nobody, or is blacked out with all that lies outside an ultrasound region."""

    @model_validator(mode="after")
    def _words_of_the_tasks_sequences(self) -> Self:
        known = [sequence.name for sequence in tasks.get(self.task).sequences] if self.series_words else []
        if unknown := sorted(self.series_words.keys() - set(known)):
            raise ValueError(f"series_words names {unknown}; sequences of {self.task} are {known}")
        if empty := [name for name, words in self.series_words.items() if not all(map(str.strip, words))]:
            raise ValueError(f"series_words of {', '.join(empty)}: an empty word would match every series")
        return self


class ReportLabels(Settings):
    """Labels from DICOM structured reports with measurement groups (TID 1500)."""

    kind: Literal["sr"]
    path: Path
    concept: str
    """Code of the qualitative evaluation or measurement with the label, such as ``SCT:363787002``, or ``finding``."""
    positive: list[CodeText] = Field(default_factory=list)
    """Codes that mean the positive class."""
    negative: list[CodeText] = Field(default_factory=list)
    """Codes that mean the negative class; a code in neither list gives no label."""
    at_least: float | None = None
    """For a measurement: the image is positive from this value on, in the report's unit."""

    @model_validator(mode="after")
    def _codes_or_limit(self) -> Self:
        if (self.at_least is None) == (not (self.positive and self.negative)):
            raise ValueError("set codes for both `positive` and `negative`, or `at_least` for a measurement")
        _refuse_both(self.positive, self.negative)
        return self


class ReportAnswers(Settings):
    """Answers of a task that asks for classes, grades or measured values, from DICOM structured reports with
    measurement groups (TID 1500): what the task declares by code and unit is looked for."""

    kind: Literal["sr_answers"]
    path: Path
    concepts: dict[str, Annotated[str, Field(pattern=r"^(finding|[A-Za-z0-9]+:[A-Za-z0-9.-]+)$")]] = Field(
        default_factory=dict
    )
    """By the name of a question (``question`` for the task's own, else of a secondary finding) the code under which the
    hospital's reports say the answer, where it is another than the task's: of a measured value its quantity, of
    classes and grades the name of the qualitative evaluation, or ``finding``, which is where they are looked for."""
    codes: dict[str, list[CodeText]] = Field(default_factory=dict)
    """By the name of a class or grade further codes that mean it here, such as the hospital's own."""


class SegmentationLabels(Settings):
    """Labels from DICOM segmentations: the findings outlined on an image."""

    kind: Literal["seg"]
    path: Path
    positive: list[CodeText] = Field(min_length=1)
    """SegmentedPropertyType codes that mean the positive class, such as ``SCT:86049000``."""
    negative: list[CodeText] = Field(default_factory=list)
    """Codes that mean the negative class."""
    empty_is_negative: bool = False
    """An image that a segmentation refers to without marking anything is negative."""

    @model_validator(mode="after")
    def _something_is_negative(self) -> Self:
        if not self.negative and not self.empty_is_negative:
            raise ValueError("set codes for `negative`, or `empty_is_negative: true`; otherwise no image is negative")
        _refuse_both(self.positive, self.negative)
        return self


class MaskLabels(Settings):
    """Labels from masks as PNG or NIfTI, named by the image's SOPInstanceUID: empty ones are negative."""

    kind: Literal["masks"]
    path: Path
    min_pixels: int = Field(default=1, ge=1)
    """Images with smaller marks are neither positive nor negative."""


class FhirLabels(Settings):
    """Labels from FHIR resources (R4, R4B or R5) as JSON: DiagnosticReport and Observation."""

    kind: Literal["fhir"]
    path: Path
    """A folder with resources, bundles (``.json``), or bulk exports (``.ndjson``)."""
    key: Literal["StudyInstanceUID", "AccessionNumber", "PatientID"]
    """The DICOM attribute by which an image is found: StudyInstanceUID and AccessionNumber from the ImagingStudy that a
    resource refers to, AccessionNumber also from identifiers of type ACSN, PatientID from the Patient."""
    code: CodeText | None = None
    """Read only resources with this code, such as ``LN:36319-2``; without it all that have a value."""
    positive: list[CodeText] = Field(default_factory=list)
    """Codes of conclusions, values and interpretations that mean the positive class."""
    negative: list[CodeText] = Field(default_factory=list)
    """Codes that mean the negative class."""
    at_least: float | None = None
    """For an Observation with a quantity: positive from this value on, in ``unit``."""
    unit: str = ""
    """UCUM code of ``at_least``; quantities in other units are counted and label nothing."""
    patient_system: str = ""
    """``Identifier.system`` of the PatientID; without it a Patient must have a single identifier, or one of type MR."""

    @model_validator(mode="after")
    def _codes_or_limit(self) -> Self:
        if (self.at_least is None) == (not (self.positive and self.negative)):
            raise ValueError("set codes for both `positive` and `negative`, or `at_least` for a quantity")
        if (self.at_least is None) != (not self.unit):
            raise ValueError("at_least and unit belong together: set both or neither")
        _refuse_both(self.positive, self.negative)
        return self


class OmopLabels(Settings):
    """Labels from tables of the OMOP Common Data Model (5.4), as CSV files with the model's names."""

    kind: Literal["omop"]
    path: Path
    """A folder with ``TABLE.csv``, and ``person.csv`` or ``image_occurrence.csv``."""
    table: Literal["condition_occurrence", "observation", "measurement", "procedure_occurrence"]
    key: Literal["StudyInstanceUID", "AccessionNumber", "PatientID"]
    """The DICOM attribute by which an image is found: PatientID is person_source_value; StudyInstanceUID and
    AccessionNumber are columns of ``image_occurrence.csv`` (the imaging extension)."""
    positive: list[int] = Field(min_length=1)
    """Concept ids that mean the positive class."""
    negative: list[int] = Field(default_factory=list)
    """Concept ids that mean the negative class."""
    absent_is_negative: bool = False
    """Whoever has an image and none of the positive concepts is negative."""
    within_days: int | None = Field(default=None, ge=0)
    """Count a row for an image only so many days around the image's date; needs ``image_occurrence.csv``."""

    @model_validator(mode="after")
    def _something_is_negative(self) -> Self:
        if not self.negative and not self.absent_is_negative:
            raise ValueError("set concepts for `negative`, or `absent_is_negative: true`; otherwise nobody is negative")
        if self.within_days is not None and self.key == "PatientID":
            raise ValueError("within_days is about an image's date: label by StudyInstanceUID or AccessionNumber")
        _refuse_both([str(one) for one in self.positive], [str(one) for one in self.negative])
        return self


def _refuse_both(positive: list[str], negative: list[str]) -> None:
    if both := sorted(set(positive) & set(negative)):
        raise ValueError(f"positive and negative at once: {', '.join(both)}")


Annotations = Annotated[
    ReportLabels | ReportAnswers | SegmentationLabels | MaskLabels | FhirLabels | OmopLabels,
    Field(discriminator="kind"),
]


class _Dicom(_Source):
    """DICOM images, with a labels file or readers' annotations."""

    labels: Path | None = None
    annotations: Annotations | None = None

    @model_validator(mode="after")
    def _labelled_in_one_way(self) -> Self:
        if (self.labels is None) == (self.annotations is None):
            raise ValueError("set either `labels` or `annotations`")
        return self


class FolderSource(_Dicom):
    """DICOM files in a folder."""

    kind: Literal["folder"]


PublishedSide = Literal["train", "validation", "leave_out"]
"""What becomes of a part of a published split. Nobody of ``leave_out`` is trained on or scored in a study."""

PUBLISHED_SIDES: dict[str, PublishedSide] = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "leave_out", "testing": "leave_out", "holdout": "leave_out",
}  # fmt: skip
"""The words that public sets use for their parts, in lower case. The test part is kept for the one figure that is
compared with a published table."""


class ManifestSource(_Source):
    """Images, clips and NIfTI volumes listed in a CSV: data derived for research, never a hospital's originals."""

    kind: Literal["manifest"]
    table: Path | None = None
    """The CSV; by default ``manifest.csv`` in ``path``, the folder that its files are named from."""
    where: dict[str, list[str]] = Field(default_factory=dict)
    file_column: str = "file"
    file_pattern: str = "{}"
    """Where a row's file lies in ``path``: ``{}`` stands for ``file_column``, ``{NAME}`` for another column, such as
    ``images/{diagnosis}/{}.png``."""
    patient_column: str = "patient_id"
    label_column: str = "label"
    positive: list[str] = Field(default_factory=list)
    """Words of ``label_column``, whatever their case, that mean the positive class; besides 1 and the class's name."""
    negative: list[str] = Field(default_factory=list)
    """Words that mean the negative class; besides 0 and the class's name."""
    left_out_labels: list[str] = Field(default_factory=list)
    """Words of images that are not used, such as a third class; besides an empty cell."""
    label_words: dict[str, str] = Field(default_factory=dict)
    """Of a question with another answer than yes or no: what words of ``label_column`` mean, such as ``{"2": benign}``;
    besides what the task itself reads."""
    split_column: str = ""
    """The column of a published split. Without it, and where a cell is empty, the hospital's key decides the side."""
    split_sides: dict[str, PublishedSide] = Field(default_factory=dict)
    """What each word of ``split_column`` means; those of ``PUBLISHED_SIDES`` need no entry."""
    finding_columns: dict[str, str] = Field(default_factory=dict)
    """The column of each secondary finding of the task: 0, 1, or empty if not known."""
    mask_columns: dict[str, str] = Field(default_factory=dict)
    """The column with the mask files of each structure of the task, separated by ``;`` if several, whose union is used;
    empty if not annotated. Pixels above zero are marked; a file without any means that nothing was found."""
    patients: Path | None = None
    """A text file with one patient of this source per line; without it all patients are included."""

    @property
    def manifest(self) -> Path:
        """The CSV."""
        return self.table or self.path / "manifest.csv"

    @model_validator(mode="after")
    def _a_word_means_one_thing(self) -> Self:
        if (self.positive or self.negative) and self.label_words:
            raise ValueError("positive and negative are for yes-or-no questions, label_words for others")
        told = (*self.positive, *self.negative, *self.label_words, *self.left_out_labels)
        said = [word.strip().casefold() for word in told]
        if twice := sorted({word for word in said if said.count(word) > 1}):
            raise ValueError(f"positive, negative, label_words and left_out_labels name {twice} more than once")
        return self

    @property
    def pattern_columns(self) -> list[str]:
        """The columns that ``file_pattern`` names."""
        return [name for _, name, _, _ in Formatter().parse(self.file_pattern) if name]

    def file_of(self, cells: Mapping[str, str]) -> str:
        """The file of a row, from ``path``."""
        values = {name: cells[name].strip() for name in self.pattern_columns}
        return self.file_pattern.format(cells[self.file_column].strip(), **values)

    @field_validator("file_pattern")
    @classmethod
    def _only_columns(cls, pattern: str) -> str:
        try:
            parts = list(Formatter().parse(pattern))
        except ValueError as error:
            raise ValueError(f"{pattern!r}: {error}; write {{{{ and }}}} for braces in a name") from None
        if wrong := [
            name for _, name, form, turn in parts if name is not None and (form or turn or set(name) & set(".[]!:"))
        ]:
            raise ValueError(f"{pattern!r} may only have {{}} and names of columns in braces, not {wrong}")
        if [name for _, name, _, _ in parts].count("") != 1:
            raise ValueError(f"{pattern!r} needs {{}} once, where the cell of file_column goes")
        return pattern

    @model_validator(mode="after")
    def _columns_of_the_task(self) -> Self:
        if self.finding_columns or self.mask_columns:
            task = tasks.get(self.task)
            known = [finding.name for finding in task.secondary_findings]
            if unknown := sorted(self.finding_columns.keys() - set(known)):
                raise ValueError(f"finding_columns names {unknown}; secondary findings of {task.name} are {known}")
            structures = [structure.name for structure in task.structures]
            if self.mask_columns and set(self.mask_columns) != set(structures):
                raise ValueError(
                    f"mask_columns names {sorted(self.mask_columns)}; structures of {task.name} are {structures}, and "
                    "each needs a column: otherwise absent structures look the same as unannotated ones"
                )
        return self


class MedmnistSource(_Source):
    """Some images of a MedMNIST archive, each taken as one patient."""

    kind: Literal["medmnist"]
    indices: Path
    """A text file with one image number per line."""
    split_sides: dict[Literal["train", "val", "test"], PublishedSide] = Field(default_factory=dict)
    """What becomes of each part of the archive; a part without an entry is divided by the hospital's key."""


class NiftiSource(_Source):
    """A BIDS data set: NIfTI volumes in ``sub-*`` folders, labels in its ``participants.tsv``."""

    kind: Literal["nifti"]
    label_column: str
    """Column of ``participants.tsv`` that has the label: a class, 0 or 1; or a grade, or a measured value."""
    suffix: str = Field(pattern=r"^[A-Za-z0-9]+$")
    """BIDS suffix of the images to use, such as ``T1w`` or ``bold``."""
    entities: dict[str, str] = Field(default_factory=dict)
    """BIDS entities that a file name must have, such as ``{ses: "01"}``."""


class Scope(Settings):
    """What to request from an archive."""

    modalities: list[str] = Field(min_length=1)
    """Modality (0008,0060) of the series to retrieve, such as ``[US]``."""
    body_parts: list[str] = Field(default_factory=list)
    """BodyPartExamined (0018,0015) of the series to retrieve; empty for all."""
    body_part_unknown: Literal["keep", "leave_out"] = "leave_out"
    """Whether to retrieve series without BodyPartExamined when ``body_parts`` is set."""
    since: date | None = None
    """First StudyDate (0008,0020)."""
    until: date | None = None
    """Last StudyDate."""
    accessions: list[str] = Field(default_factory=list)
    """AccessionNumber (0008,0050) of the examinations to use; empty for all. Labels that name accessions or studies
    narrow the search by themselves."""
    studies: list[str] = Field(default_factory=list)
    """StudyInstanceUID (0020,000D) of the examinations to use; empty for all."""
    study_descriptions: list[str] = Field(default_factory=list)
    """StudyDescription (0008,1030) of the examinations to use, with ``*`` and ``?`` as DICOM matches them, such as
    ``["*BREAST*", "MAMMA*"]``; case does not matter. Empty for all."""
    procedures: list[str] = Field(default_factory=list)
    """Code values of ProcedureCodeSequence (0008,1032) of the examinations to use; empty for all. An archive that does
    not search by them returns everything, which is noticed and refused."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since and self.until and self.since > self.until:
            raise ValueError(f"since {self.since} is after until {self.until}: no examination can match")
        return self

    def dates(self) -> str | None:
        """The range as DICOM matches it (PS3.4 C.2.2.2.5), or ``None`` for any date."""
        if self.since is None and self.until is None:
            return None
        return "-".join("" if day is None else f"{day:%Y%m%d}" for day in (self.since, self.until))


class _Archive(_Dicom):
    """What DICOMweb and DIMSE have in common. ``path`` is the spool: the folder for retrieved files."""

    scope: Scope
    max_gigabytes: float = Field(default=50, gt=0)
    """Largest size of the spool, in 10^9 bytes."""
    holds: list[str] = Field(default_factory=list)
    """UIDs of all transfer syntaxes in which the archive stores images of this scope, from its conformance statement.
    Used if the archive does not report it per image; without either it is unproven that images come as stored."""
    connect_seconds: float = Field(default=10, gt=0)
    """How long to wait for a connection."""
    silence_seconds: float = Field(default=60, gt=0)
    """How long the archive may send nothing before a request counts as failed."""
    request_seconds: float = Field(default=900, gt=0)
    """How long the retrieval of one image may take."""
    attempts: int = Field(default=8, ge=1)
    """How often a request is tried if the archive fails; with the default waits about two minutes in total."""
    first_wait_seconds: float = Field(default=1, ge=0)
    """Wait before the second attempt; it doubles with each attempt up to a minute, less a random part."""
    requests_per_second: float | None = Field(default=None, gt=0)
    """Most searches and retrievals per second; as fast as the archive answers when not given."""
    hours: str = Field(default="", pattern=r"^$|^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")
    """When images may be retrieved, in local time, such as ``20:00-06:00``; searches are always allowed. An ingest at
    another time, or at the end of that time, leaves the rest to the next one."""
    most_lost: float = Field(default=0.1, ge=0, le=1)
    """Largest fraction of the spooled images that may be gone from the archive at once. If more are gone, nothing is
    deleted before a person has said so: ``consilium-site ingest --accept-shrink``."""
    verify_days: float | None = Field(default=None, gt=0)
    """Retrieve each image again after so many days, and compare it with the spooled copy, whatever the archive tells;
    a part of them at each ingest. Never when not given; ``consilium-site ingest --verify`` compares all."""
    authority: Path | None = None
    """PEM file of the certificate authority that signed the archive's certificate; without it the system's are used."""
    certificate: Path | None = None
    """PEM file of our certificate, if the archive requires one."""
    certificate_key: Path | None = None
    """PEM file of its private key, readable by its owner only."""

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("certificate and certificate_key belong together: set both or neither")
        return self


class DicomwebSource(_Archive):
    """An archive that uses DICOMweb (PS3.18): QIDO-RS to search, WADO-RS to retrieve."""

    kind: Literal["dicomweb"]
    url: str
    """Base address, to which ``/studies`` is appended. Without user and password: they belong in files."""
    insecure_http: bool = False
    """Allow unencrypted http to another machine."""
    token: Path | None = None
    """File with a bearer token, readable by its owner only; read again for each request, so it may be renewed."""
    user: str | None = None
    password: Path | None = None
    """File with the user's password, readable by its owner only."""
    page: int = Field(default=200, ge=1)
    """Number of results per request."""
    workitems: bool = False
    """After ``predict --store``, enter each examination into the archive's worklist as well (UPS-RS, PS3.18
    section 11), with the priority that follows from the study's operating threshold."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        parts = urlsplit(self.url)
        problems = []
        if parts.scheme not in ("http", "https") or not parts.hostname:
            problems.append(f"url {parts.scheme}://{parts.hostname} is not an http or https address")
        elif parts.scheme == "http" and not self.insecure_http and not is_loopback(parts.hostname):
            problems.append("url is http: patient images would cross the network unencrypted; use https, or set "
                            "`insecure_http: true` if the network itself is encrypted")  # fmt: skip
        if parts.username or parts.password:
            problems.append("url contains a user or a password; set `user` and a `password` file instead")
        if (self.user is None) != (self.password is None):
            problems.append("user and password belong together: set both or neither")
        if self.token and self.user:
            problems.append("set a token or a user, not both")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class DimseSource(_Archive):
    """An archive that uses DIMSE (PS3.7, PS3.8): C-FIND to search, C-GET or C-MOVE to retrieve."""

    kind: Literal["dimse"]
    host: str
    port: int = Field(ge=1, le=65535)
    called_ae: str = Field(min_length=1, max_length=16)
    """AE title of the archive."""
    calling_ae: str = Field(default="CONSILIUM", min_length=1, max_length=16)
    """Our AE title; the archive's administrator must register it."""
    priority: Literal["low", "medium", "high"] = "low"
    """Priority (0000,0700) of C-GET and C-MOVE. Many archives ignore it."""
    tls: bool = False
    """Encrypt, and check the archive's certificate (PS3.15 B.12)."""
    insecure: bool = False
    """Allow an unencrypted connection to another machine."""
    retrieve: Literal["get", "move"] = "get"
    """How images come: by C-GET over the connection that we open, or by C-MOVE, for archives without C-GET: then the
    archive connects to ``receive_at``, which is open only while an ingest retrieves."""
    storage_commitment: bool = False
    """After ``predict --store``, have the archive confirm that it keeps what was stored (PS3.4 annex J). Archives may
    report that over a connection of their own, to ``receive_at``."""
    commitment_seconds: float = Field(default=60, gt=0)
    """How long to wait for that; what is not confirmed by then is told."""
    receive_at: str = ""
    """``ADDRESS:PORT`` of this machine, which the archive's administrator registers with our AE title."""
    senders: list[str] = Field(default_factory=list)
    """Who may connect there, as ``AET@ADDRESS``; ``called_ae`` at ``host`` when not given."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        problems = [*self._unsafe_connection(), *self._unsafe_port()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _unsafe_connection(self) -> Iterator[str]:
        if not self.tls and (self.authority or self.certificate):
            yield "authority and certificate need `tls: true`"
        if self.tls and self.insecure:
            yield "`insecure: true` contradicts `tls: true`: remove one of them"
        if not self.tls and not self.insecure and not is_loopback(self.host):
            yield INSECURE_DIMSE

    def _unsafe_port(self) -> Iterator[str]:
        needed = self.retrieve == "move" or self.storage_commitment
        if needed != bool(self.receive_at):
            yield ("`retrieve: move` and `storage_commitment: true` need `receive_at: ADDRESS:PORT`" if needed else
                   "receive_at is used with `retrieve: move` or `storage_commitment: true` only")  # fmt: skip
        if self.receive_at and _endpoint(self.receive_at) is None:
            yield (f"receive_at {self.receive_at!r} must be one address of this machine and a port, such as "
                   "192.0.2.20:11113; not a name, and not 0.0.0.0, which is every network")  # fmt: skip
        if self.receive_at and self.tls and not (self.authority and self.certificate):
            yield ("receive_at with `tls: true` needs `authority`, `certificate` and `certificate_key`: both sides "
                   "prove who they are")  # fmt: skip
        for sender in self.senders:
            if _SENDER.fullmatch(sender) is None:
                yield f"senders: {sender!r} must be AET@ADDRESS, such as STORE@192.0.2.11"

    def endpoint(self) -> tuple[str, int]:
        """Address and port of ``receive_at``."""
        found = _endpoint(self.receive_at)
        assert found is not None
        return found

    def accepted(self) -> list[tuple[str, str]]:
        """AE titles and hosts that may connect to ``receive_at``."""
        named = [sender.split("@") for sender in self.senders] or [[self.called_ae, self.host]]
        return [(title, host) for title, host in named]


INSECURE_DIMSE = (
    "the connection is not encrypted: patient images would cross the network in the clear; use TLS (`tls: true` and "
    "the archive's TLS port, often 2762), or set `insecure: true` if the network itself is encrypted"
)
_SENDER = re.compile(r"[^@\\\s]{1,16}@[A-Za-z0-9.:-]+")


def _endpoint(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    usable = port.isdecimal() and 0 < int(port) < 65536 and not address.is_unspecified and not address.is_multicast
    return (str(address), int(port)) if usable else None


def is_loopback(host: str) -> bool:
    """Whether the name is this machine's own, without a DNS query."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Source = Annotated[
    FolderSource | ManifestSource | MedmnistSource | NiftiSource | DicomwebSource | DimseSource,
    Field(discriminator="kind"),
]
