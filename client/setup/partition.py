"""Patients of simulated hospitals: shares of a public set, or patients drawn by a phantom."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from client.errors import EmptySource, SiteMisconfigured
from client.setup.archive_sites import dealt_out
from client.site import NAME
from client.sources.files.manifest_rows import read_manifest
from conf.schema.federation import ManifestFederation, MedmnistFederation, PhantomFederation
from conf.schema.study import Study
from tasks.task import PhantomHospital, Task

POOLED = "pooled"
"""Name of the fictitious hospital that has all patients."""
_SHOWN = 8
_SAID = (
    *("file_column", "file_pattern", "patient_column", "label_column", "split_column"),
    *("positive", "negative", "left_out_labels", "label_words", "finding_columns", "mask_columns", "split_sides"),
)
"""What a table's columns and words mean, by the names that a ``manifest`` source has for it as well."""
SHUFFLED = "shuffled"
"""Name of the fictitious hospital that has them with permuted labels. Further permutations are ``shuffled.2`` and so
on; no hospital's name has a dot."""


@dataclass(frozen=True)
class Partition:
    """Who has which patients.

    Attributes:
        sources: by hospital, what stands under ``sources`` in its ``site.yaml``.
        notes: sentences that must stand beside every result.
    """

    sources: dict[str, list[dict[str, Any]]]
    notes: list[str]


def partition(study: Study, task: Task, home: Path) -> Partition:
    """Draw phantoms, or divide a public set, as the study's federation says.

    Args:
        home: lists of who belongs to whom are written there.

    Raises:
        SiteError: the public set cannot be read.
        ValueError: the federation names hospitals that do not come out of it.
    """
    federation = study.federation
    if isinstance(federation, PhantomFederation):
        return _phantoms(study, federation, task)
    if isinstance(federation, ManifestFederation):
        return _manifest_sites(study, federation, home)
    assert isinstance(federation, MedmnistFederation)
    folder = Path(study.data_root).resolve()
    _refuse_wrong_folder(study, folder, federation.archive)
    return Partition(*dealt_out(folder / federation.archive, federation, task, home=home, seed=study.seed))


def _phantoms(study: Study, federation: PhantomFederation, task: Task) -> Partition:
    sources = {}
    for name, phantom in federation.hospitals.items():
        values = asdict(phantom) | {"images_per_patient": tuple(phantom.images_per_patient)}
        folder = Path(study.output_dir).resolve() / "phantoms" / f"{task.name}-{_short(values)}-seed{study.seed}" / name
        task.draw_phantom(folder, PhantomHospital(name=name, **values), study.seed)
        source = {"kind": "folder", "path": str(folder / "dicom"), "labels": str(folder / "labels.csv")}
        sources[name] = [source | {"task": task.name, "issuer": name}]
    return Partition(sources, ["Hospitals and patients are phantoms, drawn by a program: no real person is in them."])


def _manifest_sites(study: Study, federation: ManifestFederation, home: Path) -> Partition:
    folder = Path(study.data_root).resolve()
    _refuse_wrong_folder(study, folder, federation.table)
    owner, moved = _owners(folder, federation)
    if not owner:
        raise EmptySource(f"no row of {folder / federation.table} has a patient (where {federation.where})")
    imaginary = (POOLED, SHUFFLED)
    if unusable := sorted(site for site in set(owner.values()) if site in imaginary or not re.match(NAME, site)):
        raise ValueError(
            f"federation.site_column={federation.site_column}: not usable as hospital names: {unusable}; rename "
            "them with letters, digits, - and _, or set federation.blocks=NUMBER to deal patients out"
        )
    sources = {}
    for site in sorted(set(owner.values())):
        patients = home / f"{site}.patients.txt"
        patients.write_text("\n".join(sorted(p for p, s in owner.items() if s == site)), "utf-8")
        source: dict[str, Any] = {"kind": "manifest", "task": study.task.name, "issuer": site, "path": str(folder)}
        source |= {"where": dict(federation.where), "patients": str(patients)}
        source |= {"table": str(folder / federation.table)}
        source |= {name: said for name in _SAID if (said := getattr(federation, name))}
        sources[site] = [source | {"max_training_patients": federation.max_training_patients.get(site)}]
    unknown = federation.max_training_patients.keys() - sources.keys()
    if unknown:
        raise ValueError(f"federation.max_training_patients names {sorted(unknown)}; hospitals are {sorted(sources)}")
    notes = [f"Hospitals are simulated: one for each value of {federation.site_column} in one set of images."]
    if federation.blocks:
        notes = [f"Hospitals are simulated: the patients of one set of images distributed over {federation.blocks}."]
    if moved:
        notes.append(f"{moved} patients had images in several of them, and each was assigned to one.")
    return Partition(sources, notes)


def _owners(folder: Path, federation: ManifestFederation) -> tuple[dict[str, str], int]:
    """The hospital of each patient, the one with most of the images, and how many had images in several.

    A patient must not be trained on in one hospital and validated with in another.
    """
    table = read_manifest(folder / federation.table, ())
    _refuse_missing_columns(federation, table.columns)
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for row in table.rows:
        wanted = all(row[column] in values for column, values in federation.where.items())
        if wanted and row[federation.patient_column].strip():
            patient = row[federation.patient_column].strip()
            site = _block(patient, federation.blocks) if federation.blocks else row[federation.site_column].strip()
            votes[patient][site] += 1
    owner = {patient: min(sites, key=lambda site: (-sites[site], site)) for patient, sites in votes.items()}
    return owner, sum(len(sites) > 1 for sites in votes.values())


def _refuse_missing_columns(federation: ManifestFederation, there: Sequence[str]) -> None:
    """All at once, each with the setting that names it."""
    named = {
        f"federation.{name}": getattr(federation, name) for name in ("file_column", "patient_column", "label_column")
    }
    if not federation.blocks:
        named["federation.site_column"] = federation.site_column
    if federation.split_column:
        named["federation.split_column"] = federation.split_column
    for kind in ("finding_columns", "mask_columns"):
        named |= {f"federation.{kind}.{key}": column for key, column in getattr(federation, kind).items()}
    named |= {f"federation.where.{column}": column for column in federation.where}
    if lacking := [f"{setting}={column}" for setting, column in named.items() if column not in there]:
        raise SiteMisconfigured(
            f"{', '.join(lacking)}: {federation.table} has no such column; its columns are {', '.join(there) or 'none'}"
        )


def _refuse_wrong_folder(study: Study, folder: Path, table: str) -> None:
    if not folder.is_dir():
        raise SiteMisconfigured(f"data_root={study.data_root}: there is no such folder; set data_root=FOLDER")
    if not (folder / table).is_file():
        tables = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (".csv", ".tsv", ".npz"))
        there = f"it has {', '.join(tables[:_SHOWN])}" if tables else "it has no table at all"
        raise SiteMisconfigured(f"data_root={study.data_root}: {table} is not in that folder; {there}")


def _block(patient: str, blocks: int) -> str:
    return f"block{int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], 'big') % blocks}"


def _short(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
