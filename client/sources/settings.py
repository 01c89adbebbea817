"""What a hospital says about each of its sources in ``site.yaml``."""

from __future__ import annotations

from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tasks import task as tasks


class Settings(BaseModel):
    """Base of all settings: a misspelt key is an error, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _no_nul(self) -> Self:
        if wrong := [name for name, value in self if isinstance(value, str | Path) and "\0" in str(value)]:
            raise ValueError(f"{', '.join(wrong)}: there is a NUL character in it, which no file or name can have")
        return self


def _known_task(name: str) -> str:
    if name not in tasks.names():
        raise ValueError(f"there is no task {name!r} in this release; it has {', '.join(tasks.names())}")
    return name


TaskName = Annotated[str, AfterValidator(_known_task)]


CodeText = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+:[A-Za-z0-9.-]+$")]
"""Coding scheme designator and code value, such as ``SCT:86049000``."""


class _Source(Settings):
    task: TaskName
    issuer: str
    """IssuerOfPatientID: patients of two issuers are two patients, however alike their numbers."""
    path: Path
    max_training_patients: int | None = Field(default=None, ge=1)
    """Train on at most so many; for simulating a small hospital, and refused on any other: when a patient goes, the
    next in line comes in, so that two patients differ between the cohorts and not one."""
    organ_declared: str = ""
    """The organ that every image of this source shows, as the hospital vouches; used where a file does not tell."""
    organ_words: dict[str, str] = Field(default_factory=dict)
    """The hospital's own words for BodyPartExamined and the organ each means, such as ``{MAMMO US: breast}``."""


class ReportLabels(Settings):
    """Labels from DICOM structured reports with measurement groups (TID 1500)."""

    kind: Literal["sr"]
    path: Path
    concept: str
    """Code of the qualitative evaluation or measurement that tells, such as ``SCT:363787002``, or ``finding``."""
    positive: list[CodeText] = Field(default_factory=list)
    """Codes that mean the positive class."""
    negative: list[CodeText] = Field(default_factory=list)
    """Codes that mean the negative class; what is in neither list tells nothing."""
    at_least: float | None = None
    """For a measurement: from this value on, in the report's unit, the image is positive."""

    @model_validator(mode="after")
    def _codes_or_limit(self) -> Self:
        if (self.at_least is None) == (not (self.positive and self.negative)):
            raise ValueError("give codes for both `positive` and `negative`, or `at_least` for a measurement")
        _refuse_both(self.positive, self.negative)
        return self


class SegmentationLabels(Settings):
    """Labels from DICOM segmentations: which findings are outlined on an image."""

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
            raise ValueError("give codes for `negative`, or say `empty_is_negative: true`; else no image is negative")
        _refuse_both(self.positive, self.negative)
        return self


class MaskLabels(Settings):
    """Labels from masks as PNG or NIfTI, named by the image's SOPInstanceUID: empty ones are negative."""

    kind: Literal["masks"]
    path: Path
    min_pixels: int = Field(default=1, ge=1)
    """Smaller marks count neither as finding nor as none."""


def _refuse_both(positive: list[str], negative: list[str]) -> None:
    if both := sorted(set(positive) & set(negative)):
        raise ValueError(f"positive and negative at once: {', '.join(both)}")


Annotations = Annotated[ReportLabels | SegmentationLabels | MaskLabels, Field(discriminator="kind")]


class _Dicom(_Source):
    """DICOM images, and a labels file or what readers have drawn and measured."""

    labels: Path | None = None
    annotations: Annotations | None = None

    @model_validator(mode="after")
    def _labelled_in_one_way(self) -> Self:
        if (self.labels is None) == (self.annotations is None):
            raise ValueError("give either a `labels` file or `annotations`")
        return self


class FolderSource(_Dicom):
    """DICOM files in a folder."""

    kind: Literal["folder"]


class ManifestSource(_Source):
    """Images and clips listed in a ``manifest.csv``: data derived for research, never a hospital's originals."""

    kind: Literal["manifest"]
    where: dict[str, list[str]] = Field(default_factory=dict)
    patient_column: str = "patient_id"
    label_column: str = "label"
    finding_columns: dict[str, str] = Field(default_factory=dict)
    """Of a further finding of the task the column that has it: 0, 1, or empty where it is not known."""
    mask_columns: dict[str, str] = Field(default_factory=dict)
    """Of each structure of the task the column that names its mask files, with ``;`` between several, which are united;
    empty where nobody has looked. Pixels above zero mark; a file without any says that nothing was found."""
    patients: Path | None = None
    """A text file with one patient of this source a line; without it all patients are."""

    @model_validator(mode="after")
    def _columns_of_the_task(self) -> Self:
        if self.finding_columns or self.mask_columns:
            task = tasks.get(self.task)
            known = [finding.name for finding in task.further_findings]
            if unknown := sorted(self.finding_columns.keys() - set(known)):
                raise ValueError(f"finding_columns names {unknown}; further findings of {task.name} are {known}")
            structures = [structure.name for structure in task.structures]
            if self.mask_columns and set(self.mask_columns) != set(structures):
                raise ValueError(
                    f"mask_columns names {sorted(self.mask_columns)}; structures of {task.name} are {structures}, and "
                    "each needs a column, or nobody could tell what is not there from what nobody looked for"
                )
        return self


class MedmnistSource(_Source):
    """Some images of a MedMNIST archive, each taken as one patient."""

    kind: Literal["medmnist"]
    indices: Path
    """A text file with one image number a line."""


class NiftiSource(_Source):
    """A BIDS data set: NIfTI volumes in ``sub-*`` folders, labels in its ``participants.tsv``."""

    kind: Literal["nifti"]
    label_column: str
    """Column of ``participants.tsv`` that has the label: a class, 0 or 1."""
    suffix: str = Field(pattern=r"^[A-Za-z0-9]+$")
    """BIDS suffix of the images to take, such as ``T1w`` or ``bold``."""
    entities: dict[str, str] = Field(default_factory=dict)
    """BIDS entities that a file name must have, such as ``{ses: "01"}``."""


class Scope(Settings):
    """What to ask an archive for."""

    modalities: list[str] = Field(min_length=1)
    """Modality (0008,0060) of the series to take, such as ``[US]``."""
    body_parts: list[str] = Field(default_factory=list)
    """BodyPartExamined (0018,0015) of the series to take; empty takes all."""
    body_part_unknown: Literal["keep", "leave_out"] = "leave_out"
    """What becomes of a series that tells no BodyPartExamined when ``body_parts`` is given."""
    since: date | None = None
    """First StudyDate (0008,0020)."""
    until: date | None = None
    """Last StudyDate."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since and self.until and self.since > self.until:
            raise ValueError(f"since {self.since} is after until {self.until}: no study can match")
        return self

    def dates(self) -> str | None:
        """The range as DICOM matches it (PS3.4 C.2.2.2.5), or ``None`` for any date."""
        if self.since is None and self.until is None:
            return None
        return "-".join("" if day is None else f"{day:%Y%m%d}" for day in (self.since, self.until))


class _Archive(_Dicom):
    """What DICOMweb and DIMSE have in common. ``path`` is the spool: the folder that holds what was retrieved."""

    scope: Scope
    max_gigabytes: float = Field(default=50, gt=0)
    """Most that the spool may hold, in 10^9 bytes."""
    holds: list[str] = Field(default_factory=list)
    """UIDs of all transfer syntaxes in which the archive stores images of this scope, from its conformance statement.
    Used where the archive does not tell per image; without either nobody can prove that images come as stored."""
    connect_seconds: float = Field(default=10, gt=0)
    """How long to wait for a connection."""
    silence_seconds: float = Field(default=60, gt=0)
    """How long the archive may send nothing before a request counts as failed."""
    request_seconds: float = Field(default=900, gt=0)
    """How long the retrieval of one image may take."""
    attempts: int = Field(default=8, ge=1)
    """How often a request is tried when the archive fails; with the default waits about two minutes in all."""
    first_wait_seconds: float = Field(default=1, ge=0)
    """Wait before the second attempt; it doubles from attempt to attempt up to a minute, less a random part."""
    authority: Path | None = None
    """PEM file of the certificate authority that signed the archive's certificate; without it the system's are used."""
    certificate: Path | None = None
    """PEM file of our certificate, where the archive asks for one."""
    certificate_key: Path | None = None
    """PEM file of its private key, readable by its owner only."""

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("certificate and certificate_key belong together: give both or none")
        return self


class DicomwebSource(_Archive):
    """An archive that speaks DICOMweb (PS3.18): QIDO-RS to search, WADO-RS to retrieve."""

    kind: Literal["dicomweb"]
    url: str
    """Address under which ``/studies`` is found. No user and no password in it: they belong in files."""
    insecure_http: bool = False
    """Allow http without encryption to another machine."""
    token: Path | None = None
    """File with a bearer token, readable by its owner only; read again for each request, so it may be renewed."""
    user: str | None = None
    password: Path | None = None
    """File with the user's password, readable by its owner only."""
    page: int = Field(default=200, ge=1)
    """How many results to ask for at once."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        parts = urlsplit(self.url)
        problems = []
        if parts.scheme not in ("http", "https") or not parts.hostname:
            problems.append(f"url {parts.scheme}://{parts.hostname} is no http or https address")
        elif parts.scheme == "http" and not self.insecure_http and not is_loopback(parts.hostname):
            problems.append("url is http: patients' images would cross the network in the clear; use https, or say "
                            "`insecure_http: true` where the network itself is encrypted")  # fmt: skip
        if parts.username or parts.password:
            problems.append("url has a user or a password in it; give `user` and a `password` file instead")
        if (self.user is None) != (self.password is None):
            problems.append("user and password belong together: give both or none")
        if self.token and self.user:
            problems.append("give a token or a user, not both")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class DimseSource(_Archive):
    """An archive that speaks DICOM's own protocol (PS3.7, PS3.8): C-FIND to search, C-GET to retrieve."""

    kind: Literal["dimse"]
    host: str
    port: int = Field(ge=1, le=65535)
    called_ae: str = Field(min_length=1, max_length=16)
    """AE title of the archive."""
    calling_ae: str = Field(default="CONSILIUM", min_length=1, max_length=16)
    """Our AE title; the archive's administrator has to know it."""
    tls: bool = False
    """Encrypt, and check the archive's certificate (PS3.15 B.12)."""

    @model_validator(mode="after")
    def _certificates_need_tls(self) -> Self:
        if not self.tls and (self.authority or self.certificate):
            raise ValueError("authority and certificate are used with `tls: true` only")
        return self


def is_loopback(host: str) -> bool:
    """Whether the name is this machine's own, without asking a name server."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Source = Annotated[
    FolderSource | ManifestSource | MedmnistSource | NiftiSource | DicomwebSource | DimseSource,
    Field(discriminator="kind"),
]
