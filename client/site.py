"""The hospital's own settings, from its ``site.yaml``. Nothing here comes from the network."""

from __future__ import annotations

import math
import os
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from client.errors import SiteMisconfigured
from client.sources.settings import DicomwebSource, DimseSource, FolderSource, Settings, Source, TaskName
from tasks import faults
from tasks.machine import exposition, yaml_text
from tasks.machine.disk import write_secret
from tasks.machine.language import Language
from tasks.machine.logs import MEGABYTES
from tasks.machine.notices import Hook
from tasks.protocol.study import Fingerprint

_Epsilon = Annotated[float, Field(gt=0, allow_inf_nan=False)]

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$"
"""Pattern of a hospital's name."""

_TICK_S = 10.0

Scores = Literal["none", "noised", "exact"]


def _in_groups(value: object) -> object:
    digits = "".join(value.split()).lower() if isinstance(value, str) else ""
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4)) or value


Pinned = Annotated[Fingerprint, BeforeValidator(_in_groups)]
"""As read out on the telephone, with spaces or without."""


class SecureSumPolicy(Settings):
    """With whom this hospital shares noise, and how far it trusts them."""

    least_hospitals: int = Field(default=3, ge=3)
    """Fewest hospitals, this one among them, whose sum it is part of."""
    colluding: int = Field(default=1, ge=1)
    """How many of the others may conspire with the coordinator before ``max_epsilon_study`` no longer holds. A study
    that allows for fewer is refused."""
    max_epsilon_alone: _Epsilon = 16.0
    """Largest privacy loss of a patient in one study if all other hospitals conspired with the coordinator."""
    max_epsilon_alone_life: _Epsilon = 40.0
    """Likewise over all studies, ever; what leaves with the whole noise counts in it as well."""
    peers: list[Pinned] = Field(min_length=2)
    """Fingerprints of the other hospitals' enrolled keys, as their staff read them out. Nobody else is accepted."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        problems = []
        if self.least_hospitals - self.colluding < 2:
            problems.append(
                f"colluding={self.colluding} of least_hospitals={self.least_hospitals} leaves no two honest ones, and "
                "so no noise to share"
            )
        if self.max_epsilon_alone > self.max_epsilon_alone_life:
            problems.append(
                f"max_epsilon_alone={self.max_epsilon_alone:g} is above max_epsilon_alone_life="
                f"{self.max_epsilon_alone_life:g}"
            )
        if len(set(self.peers)) < len(self.peers):
            problems.append("peers names one fingerprint twice")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Policy(Settings):
    """What the hospital allows; a study may ask for less, never for more."""

    tasks: list[TaskName] = Field(min_length=1)
    """Permitted clinical questions, by the names of the folders in ``tasks/``."""
    models: list[str] = Field(default=["scatter_linear"], min_length=1)
    """Networks that may be trained here, by their names in ``tasks/models/registry.py``; one of another package, which
    must be installed here, by its entry, such as ``my_package.net:build``."""
    max_epsilon_study: _Epsilon = 8.0
    """Largest privacy loss of a patient in one study."""
    max_epsilon_life: _Epsilon = 20.0
    """Largest privacy loss of a patient over all studies, ever."""
    max_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """Largest delta. ``delta_cap`` lowers it further for a hospital with many patients."""
    min_patients: int = Field(default=10, ge=1)
    """Fewest training patients for the hospital to take part."""
    max_rounds: int = Field(default=100, ge=1)
    """Most rounds of training in one study."""
    max_steps: int = Field(default=100, ge=1)
    """Most optimiser steps in one round."""
    max_images_per_patient: int = Field(default=16, ge=1)
    """Most images per patient that one step may draw; with ``max_steps`` it bounds how long a round takes."""
    max_upload_bytes: int = Field(default=64 * 2**20, ge=1)
    """Most bytes of tensors that may leave in one round."""
    scores: Scores = "noised"
    """How validation patients may be scored: ``none`` refuses every evaluation, with ``noised`` histograms leave with
    noise on every cell, with ``exact`` without noise (simulated hospitals only)."""
    max_bins: int = Field(default=64, ge=2)
    """Most cells of a score histogram, per class."""
    subgroups: list[str] = Field(default_factory=list)
    """Attributes by which scores may be grouped: ``sex``, ``age``, ``vendor``; each costs its share of epsilon."""
    surveys: list[str] = Field(default_factory=list)
    """What a survey may count patients by: ``label`` (the task's question and its secondary findings), ``sex``,
    ``age``, ``vendor``, ``spacing``, ``thickness``, ``intensity``. With none every survey is refused."""
    without_privacy: bool = False
    """Answer orders that ask for training without noise: for simulated hospitals only."""
    secure_sum: SecureSumPolicy | None = None
    """Permits studies whose hospitals share the noise; without it this hospital adds the whole noise by itself."""
    approvers: int = Field(default=1, ge=1, le=9)
    """How many different people must approve a study or a survey."""
    auto_approve: bool = False
    """Approve whatever the policy permits, without asking a person: for simulated hospitals only."""

    @model_validator(mode="after")
    def _a_study_is_part_of_a_life(self) -> Self:
        if self.max_epsilon_study > self.max_epsilon_life:
            raise ValueError(
                f"max_epsilon_study={self.max_epsilon_study:g} is above max_epsilon_life={self.max_epsilon_life:g}: "
                "one study may not spend more than all studies together"
            )
        return self

    @model_validator(mode="after")
    def _asks_people_or_nobody(self) -> Self:
        if self.auto_approve and self.approvers > 1:
            raise ValueError(f"auto_approve asks nobody, approvers={self.approvers} asks several: set one of them")
        return self

    @model_validator(mode="after")
    def _all_others_learn_no_less_than_a_few(self) -> Self:
        sums = self.secure_sum
        pairs = () if sums is None else (
            ("max_epsilon_alone", sums.max_epsilon_alone, "max_epsilon_study", self.max_epsilon_study),
            ("max_epsilon_alone_life", sums.max_epsilon_alone_life, "max_epsilon_life", self.max_epsilon_life),
        )  # fmt: skip
        if wrong := [f"{name}={cap:g} is below {other}={least:g}" for name, cap, other, least in pairs if cap < least]:
            raise ValueError(f"secure_sum: {'; '.join(wrong)}: all others together learn at least as much as a few")
        return self


class TrainerSettings(Settings):
    """On what the hospital computes. It changes neither what is permitted nor what the ledger is charged."""

    device: str = Field(default="cpu", pattern=r"^(auto|cpu|mps|cuda(:\d{1,2})?)$")
    """Where networks are trained and scored, and fixed encoders computed: ``cpu``; ``auto``, a GPU if there is one;
    ``cuda``, or ``cuda:1`` for the second GPU; ``mps`` (Apple). If it is missing the processor computes, and the log
    says so."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the products while a network is trained. With ``bfloat16``, which newer GPUs and processors do faster,
    weights, gradients, clipping and noise stay as they are, and so do scores and features."""


class SiteSettings(Settings):
    """One hospital."""

    name: str = Field(pattern=NAME)
    """The hospital's public name in studies."""
    simulated: bool = False
    """Not a real hospital: synthetic or public research data. It is marked as simulated wherever it appears."""
    public_size: int | None = Field(default=None, ge=1)
    """Cohort size that the hospital declares publicly: a round number near its number of training patients. It weights
    its updates, sets the expected batch and bounds delta. Only a simulated hospital may omit it; then the number of
    training patients is rounded to one significant digit, which reveals something about them."""
    catalog: Path = Path("catalog")
    """Folder of the index and the cached examples."""
    ledger: Path = Path("ledger.sqlite")
    """The privacy ledger; back it up, never delete it."""
    audit_log: Path = Path("audit.sqlite")
    """Receipts of everything that left, and who approved what. Pending studies are in ``pending`` next to it."""
    kept: Path = Path("kept")
    """Folder for what the hospital keeps of a study between rounds, such as local parts of the model. Back it up:
    without it the hospital cannot continue in a study that keeps something."""
    weights: Path = Path("weights")
    """Folder of ``*.safetensors`` files with weights that a study's network may start from or keep frozen. An order
    selects one by its SHA-256; nothing is ever downloaded."""
    stop_file: Path = Path("STOP")
    """While this file exists nothing leaves; ``consilium-site stop`` creates it."""
    merges: Path | None = None
    """Patient merges as the hospital's own systems announce them: a file, or a folder, of HL7 messages (ADT^A18, A34,
    A40) or of CSV with the columns ``from`` and ``to``. Once it is set, a missing one is an error."""
    withdrawals: Path | None = None
    """List of patients who have withdrawn. Once it is set, a missing file is an error, not an empty list."""
    key: Path = Path("site.key")
    """Secret key of this hospital: makes pseudonyms and the split. Created at first use, readable by its owner only."""
    server: str | None = Field(default=None, pattern=r"^[A-Za-z0-9.-]+:\d{1,5}$")
    """``host:port`` of the server; ``consilium-site check`` tests whether it can be reached."""
    link: Path = Path("link")
    """Folder of the connection to that server: the gateway's key, the server's authority, and the secret that gateway
    and trainer share. ``consilium-site enroll`` creates it."""
    log: Path = Path("site.log")
    """What went wrong and why, for hospital staff only."""
    log_megabytes: float = Field(default=MEGABYTES, ge=0.1, le=10_000)
    """This log, and those of gateway and trainer, are set aside at this size, in 10^6 bytes; three older ones of each
    are kept."""
    metrics: exposition.Address | None = None
    """``ADDRESS:PORT`` at which ``run`` shows figures to Prometheus, such as ``127.0.0.1:9464``; not encrypted. None is
    of a patient or an image."""
    notify: Hook = Hook()
    """Whom to tell what waits for a person here."""
    reply_tick_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """A reply leaves at the next multiple of this many seconds after its order came, so that its timing does not reveal
    the number of patients. Default 10; 0 (at once) is for simulated hospitals, where it is the default."""
    shuffled_labels: int = Field(default=0, ge=0)
    """Permute the training labels among the patients at random: a simulated hospital with nothing to teach, as a
    negative control."""
    max_memory_mb: int = Field(default=1024, ge=64)
    """Memory in MiB that training may use in addition to the model, the processor's or the GPU's; sets how many
    patients are processed at once."""
    trainer: TrainerSettings = TrainerSettings()
    """On what the hospital computes."""
    max_cache_gigabytes: float = Field(default=50, gt=0)
    """Most disk space for the prepared images of one task, in 10^9 bytes."""
    validation_fraction: float = Field(default=0.3, gt=0, lt=1)
    """Fraction of patients reserved for validation. Decide once: the ledger records it, as it does the sources' issuers
    and the policy's caps, and after a change no order is answered before ``consilium-site ledger rebase``."""
    lang: Language = "en"
    """The language in which people here are told what they must read: ``en``, ``zh`` or ``de``. What programs read is
    English: JSON, logs, DICOM, codes."""
    earlier_reports: Literal["replace", "beside"] = "replace"
    """What becomes of earlier reports on the same question when ``predict --store`` stores one of another model:
    ``replace`` names them as its predecessors, ``beside`` does not. Nothing is deleted in an archive."""
    sources: list[Source] = Field(min_length=1)
    policy: Policy

    @model_validator(mode="after")
    def _real_hospitals_keep_the_guarantee(self) -> Self:
        """All problems at once, so that nobody fixes one only to meet the next."""
        problems = []
        if not self.simulated:
            lax = {
                "policy.without_privacy": self.policy.without_privacy,
                "policy.auto_approve": self.policy.auto_approve,
                "policy.scores: exact": self.policy.scores == "exact",
                "shuffled_labels": self.shuffled_labels,
                "reply_tick_s: 0": self.reply_tick_s == 0,
                "max_training_patients of a source": any(s.max_training_patients is not None for s in self.sources),
            }
            if wrong := [name for name, value in lax.items() if value]:
                problems.append(f"{', '.join(wrong)}: only for a site with `simulated: true`")
            if self.public_size is None:
                problems.append("public_size is missing: set a round number near your number of training patients")
        if shared := _shared_paths(self):
            problems.append(f"{' and '.join(shared)} name the same file; each needs its own")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def log_bytes(self) -> int:
        return int(self.log_megabytes * 1e6)

    @property
    def people(self) -> Path:
        """Who is who under which patient numbers, see ``cohort/people.py``; beside the audit log, which journals it."""
        return self.audit_log.with_suffix(".people.sqlite")

    @property
    def tick_s(self) -> float:
        """Replies leave at multiples of this many seconds; 0: at once."""
        if self.reply_tick_s is not None:
            return self.reply_tick_s
        return 0.0 if self.simulated else _TICK_S


def _shared_paths(settings: SiteSettings) -> list[str]:
    names: dict[Path, list[str]] = {}
    for name, value in settings:
        if isinstance(value, Path):
            names.setdefault(Path(os.path.normpath(value)), []).append(name)
    return next((sharing for sharing in names.values() if len(sharing) > 1), [])


def delta_cap(settings: SiteSettings) -> float:
    """Largest delta that the hospital grants: ``policy.max_delta``, and at most a tenth of 1 / public size.

    Delta is the probability with which the promise of epsilon may fail. A release that publishes each patient's record
    with probability delta keeps every promise of (0, delta)-differential privacy, so delta times the number of patients
    bounds how many are exposed in expectation (Dwork and Roth, 2014, section 2.3). It must stay well below one: here
    at most 0.1.
    """
    policy_cap = settings.policy.max_delta
    return policy_cap if settings.public_size is None else min(policy_cap, 0.1 / settings.public_size)


def declared_size(settings: SiteSettings, patients: int) -> int:
    """The size that the hospital declares publicly; for a simulated one without a declaration, its number of training
    patients to one significant digit, at least 1."""
    if settings.public_size is not None:
        return settings.public_size
    unit = int(10 ** int(math.log10(max(1, patients))))
    return max(1, round(patients / unit)) * unit


def load(path: Path) -> SiteSettings:
    """The settings in a ``site.yaml``; relative paths in it start from its folder.

    Raises:
        SiteMisconfigured: listing every problem in the file.
    """
    try:
        return _settings(path.read_text("utf-8-sig"), path.absolute())
    except FileNotFoundError:
        raise SiteMisconfigured(
            f"there is no {path}: name yours with --site, or found a hospital with: consilium-site init --site {path} "
            "--name NAME"
        ) from None
    except OSError as error:
        raise SiteMisconfigured(f"cannot read {faults.of_system(error)}") from error
    except ValueError as error:  # another encoding, or a name that no file can have
        raise SiteMisconfigured(f"cannot read {path}: {error}; it must be text in UTF-8") from error


@lru_cache(maxsize=512)  # asked at every order; the text is the key, so an edit counts from the next order on
def _settings(text: str, path: Path) -> SiteSettings:
    try:
        settings = SiteSettings.model_validate(_values(text, path))
    except ValidationError as error:
        problems = [f"  {'.'.join(map(str, e['loc'])) or 'file'}: {_told(e)}" for e in error.errors()]
        raise SiteMisconfigured(f"{path} has {len(problems)} problem(s):\n" + "\n".join(problems)) from None
    return _anchored(settings, path.parent.resolve())


def _told(fault: ErrorDetails) -> str:
    """A fault in words; of a setting that there is not, which was meant."""
    if fault["type"] != "extra_forbidden":
        return faults.of_value(fault)
    classes = (SiteSettings, Policy, SecureSumPolicy, TrainerSettings, FolderSource, DicomwebSource, DimseSource)
    known = dict.fromkeys(name for kind in classes for name in kind.model_fields)
    meant = get_close_matches(str(fault["loc"][-1]), known, n=1)
    return f"there is no such setting here; {f'did you mean {meant[0]}?' if meant else 'take it out'}"


def _values(text: str, path: Path) -> object:
    try:
        return yaml_text.values(text)
    except yaml_text.BadYaml as error:
        raise SiteMisconfigured(f"cannot read {path}: {error}") from error


def _anchored(settings: SiteSettings, folder: Path) -> SiteSettings:
    """The same settings with absolute paths."""

    def paths(part: Settings) -> dict[str, Path]:
        return {name: folder / value for name, value in part if isinstance(value, Path)}

    def anchored(source: Source) -> Source:
        own: dict[str, object] = {**paths(source)}
        if isinstance(source, FolderSource | DicomwebSource | DimseSource) and source.annotations is not None:
            own["annotations"] = source.annotations.model_copy(update=paths(source.annotations))
        return source.model_copy(update=own)

    sources = [anchored(source) for source in settings.sources]
    return settings.model_copy(update={**paths(settings), "sources": sources})


def secret(settings: SiteSettings) -> bytes:
    """The hospital's key; created from the operating system's randomness if there is none yet.

    Raises:
        SiteMisconfigured: the file is readable by others, too short to be a key, or lost.
    """
    path = settings.key
    if path.exists():
        return _existing_secret(path)
    if records := [file for file in (settings.ledger, settings.audit_log) if file.exists()]:
        # A new key would seal nothing of the old records, and would send patients to the other side of the split.
        raise SiteMisconfigured(f"{path} is missing, but {records[0]} was created with it; restore it from your backup")
    try:
        write_secret(path, os.urandom(32))
    except FileExistsError:
        return _existing_secret(path)
    return path.read_bytes()


def _existing_secret(path: Path) -> bytes:
    if not path.is_file():
        raise SiteMisconfigured(f"{path} is no file: set `key` to the file that consilium-site init has created")
    if path.stat().st_mode & 0o077:
        raise SiteMisconfigured(f"{path} is readable by users other than its owner; run: chmod 600 {path}")
    key = path.read_bytes()
    if len(key) < 32:
        raise SiteMisconfigured(f"{path} holds {len(key)} bytes, a key has 32; restore it from your backup")
    return key
