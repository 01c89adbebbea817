"""The hospital's own settings, from its ``site.yaml``. Nothing in here comes from the network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from client.errors import SiteMisconfigured

_Epsilon = Annotated[float, Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(_Settings):
    task: str
    issuer: str
    """IssuerOfPatientID: patients of two issuers are two patients, however alike their numbers."""
    path: Path
    max_training_patients: int | None = Field(default=None, ge=1)
    """Train on at most so many; for simulating a small hospital."""


class FolderSource(_Source):
    """DICOM files in a folder, and a labels file."""

    kind: Literal["folder"]
    labels: Path


class ManifestSource(_Source):
    """PNG or JPEG images listed in a ``manifest.csv``: data derived for research, never a hospital's originals."""

    kind: Literal["manifest"]
    where: dict[str, list[str]] = Field(default_factory=dict)
    patient_column: str = "patient_id"
    label_column: str = "label"
    patients: Path | None = None
    """A text file with one patient of this source a line; without it all patients are."""


class MedmnistSource(_Source):
    """Some images of a MedMNIST archive, each taken as one patient."""

    kind: Literal["medmnist"]
    indices: Path
    """A text file with one image number a line."""


Source = Annotated[FolderSource | ManifestSource | MedmnistSource, Field(discriminator="kind")]


class Policy(_Settings):
    """What the hospital allows; a study may ask for less, never for more."""

    tasks: list[str] = Field(min_length=1)
    max_epsilon_study: _Epsilon = 8.0
    """Largest privacy loss of a patient in one study."""
    max_epsilon_life: _Epsilon = 20.0
    """Largest privacy loss of a patient over all studies, ever."""
    max_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    min_patients: int = Field(default=10, ge=1)
    """Fewest training patients with which the hospital takes part."""
    max_steps: int = Field(default=100, ge=1)
    """Most optimiser steps in one round."""
    without_privacy: bool = False
    """Answer orders that ask for no noise: for simulated hospitals only."""
    exact_scores: bool = False
    """Report score histograms without noise: for simulated hospitals only."""


class SiteSettings(_Settings):
    """One hospital."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")
    """The hospital's public name in studies."""
    simulated: bool = False
    """No real hospital: invented or public research data. Such a site says so wherever it appears."""
    public_size: int | None = Field(default=None, ge=1)
    """Cohort size that the hospital declares in public, used as weight and for the expected batch. Without it the
    number of training patients rounded to one significant digit is used."""
    catalog: Path = Path("catalog")
    """Folder of the index and the cached examples."""
    ledger: Path = Path("ledger.sqlite")
    """The privacy ledger; back it up, never delete it."""
    key: Path = Path("site.key")
    """Secret of this hospital: makes pseudonyms and the split. Made at first use, readable by its owner only."""
    log: Path = Path("site.log")
    validation_fraction: float = Field(default=0.3, gt=0, lt=1)
    """Fraction of patients that is kept for validation."""
    sources: list[Source] = Field(min_length=1)
    policy: Policy

    @model_validator(mode="after")
    def _only_simulated_sites_go_without_noise(self) -> Self:
        if not self.simulated and (self.policy.without_privacy or self.policy.exact_scores):
            raise ValueError("policy.without_privacy and policy.exact_scores are for sites with `simulated: true`")
        return self


def load(path: Path) -> SiteSettings:
    """The settings in a ``site.yaml``; relative paths in it start from its folder.

    Raises:
        SiteMisconfigured: listing every problem in the file.
    """
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
        settings = SiteSettings.model_validate(values)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SiteMisconfigured(f"cannot read {path}: {error}") from error
    except ValidationError as error:
        problems = [f"  {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise SiteMisconfigured(f"{path} has {len(problems)} problem(s):\n" + "\n".join(problems)) from None
    return _anchored(settings, path.parent.resolve())


def _anchored(settings: SiteSettings, folder: Path) -> SiteSettings:
    """The same settings with absolute paths."""

    def paths(part: _Settings) -> dict[str, Path]:
        return {name: folder / value for name, value in part if isinstance(value, Path)}

    sources = [source.model_copy(update=paths(source)) for source in settings.sources]
    return settings.model_copy(update={**paths(settings), "sources": sources})


def secret(settings: SiteSettings) -> bytes:
    """The hospital's key, made from the operating system's randomness when there is none yet.

    Raises:
        SiteMisconfigured: the file is readable by others, or too short to be a key.
    """
    path = settings.key
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _existing_secret(path)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(32))
        file.flush()
        os.fsync(file.fileno())
    return path.read_bytes()


def _existing_secret(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise SiteMisconfigured(f"{path} is readable by others than its owner; say: chmod 600 {path}")
    key = path.read_bytes()
    if len(key) < 32:
        raise SiteMisconfigured(f"{path} holds {len(key)} bytes, a key has 32; restore it from your backup")
    return key
