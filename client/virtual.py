"""Simulated hospitals on one machine: cut from a public set, or drawn by a task's phantom.

Each gets a ``site.yaml`` like a real one, with ``simulated: true`` and a policy that allows just what the study needs.
From there on nothing distinguishes it: the same code reads the file, ingests the source, keeps a ledger and answers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from client.catalog import IngestReport, ingest
from client.site import MedmnistSource, load
from client.sources.manifest import read_manifest
from client.sources.medmnist import read_archive
from conf import schema
from tasks import task as tasks
from tasks.task import PhantomHospital, Task

POOLED = "pooled"
"""Name of the imaginary hospital that has everybody's patients."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class VirtualHospitals:
    """Settings files of the simulated hospitals.

    Attributes:
        federated: by name, those that take part in the study.
        alone: by name, the same hospitals with ledgers of their own and a policy that allows training without noise,
            for the comparison; and the imaginary pooled one under ``POOLED``.
        reports: by name, what each ingest found.
        notes: sentences that must stand beside every result.
    """

    federated: dict[str, Path]
    alone: dict[str, Path]
    reports: dict[str, IngestReport]
    notes: list[str] = field(default_factory=list)


def found(study: schema.Study, folder: Path, progress: Progress) -> VirtualHospitals:
    """Found the study's hospitals and ingest their images.

    Args:
        folder: the study's own folder: settings and ledgers go there. Catalogs are shared by all studies of
            ``output_dir`` on the same data.

    Raises:
        SiteError: images or labels cannot be used.
    """
    task = tasks.get(study.task.name)
    home = Path(study.output_dir).resolve() / "hospitals" / _digest(study)
    home.mkdir(parents=True, exist_ok=True)
    sources, notes = _sources(study, task, home)
    key = _simulated_key(home, study.seed)
    federated, alone = {}, {}
    for name, own in sources.items():
        federated[name] = _write(folder / "sites" / f"{name}.yaml", _settings(study, name, own, home, key))
    for name, own in {**sources, POOLED: [s for own in sources.values() for s in own]}.items():
        alone[name] = _write(folder / "sites-alone" / f"{name}.yaml", _unlimited(study, name, own, home, key))
    reports = {name: ingest(load(path), task, progress) for name, path in federated.items()}
    return VirtualHospitals(federated, alone, reports, notes)


def _digest(study: schema.Study) -> str:
    """Names the catalogs: equal for studies that differ only in model, privacy or training."""
    who = {**asdict(study.federation), "rounds": 0, "quorum": 0, "deadline_s": 0}
    made_of = [study.task.name, who, study.seed, str(Path(study.data_root).resolve()) if study.data_root else ""]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]


def _simulated_key(home: Path, seed: int) -> Path:
    """A key made from the seed, so that splits can be repeated; a real hospital's key is random."""
    path = home / "site.key"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(f"simulated hospital, seed {seed}".encode()).digest())
    return path


def _settings(study: schema.Study, name: str, sources: list[dict[str, Any]], home: Path, key: Path) -> dict[str, Any]:
    epsilon = study.privacy.epsilon
    policy: dict[str, Any] = {
        "tasks": [study.task.name],
        "max_delta": study.privacy.delta,
        "min_patients": 5,
        "models": [study.model.name],
        "max_rounds": study.federation.rounds,
        "max_steps": study.training.steps,
        "max_bins": study.evaluation.bins,
        "without_privacy": epsilon is None,
        "scores": "exact" if study.evaluation.epsilon is None else "noised",
    }
    caps = [e for e in (epsilon, study.evaluation.epsilon) if e is not None]
    if caps:
        policy |= {"max_epsilon_study": max(caps), "max_epsilon_life": max(caps)}
    return {
        "name": name,
        "simulated": True,
        "catalog": str(home / "catalog"),
        "key": str(key),
        "ledger": f"{name}.ledger.sqlite",
        "log": f"{name}.log",
        "validation_fraction": study.federation.validation_fraction,
        "sources": sources,
        "policy": policy,
    }


def _unlimited(study: schema.Study, name: str, sources: list[dict[str, Any]], home: Path, key: Path) -> dict[str, Any]:
    settings = _settings(study, name, sources, home, key)
    settings["policy"] |= {"without_privacy": True, "scores": "exact", "max_bins": 1024}
    return settings


def _write(path: Path, settings: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return path


def _sources(study: schema.Study, task: Task, home: Path) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    federation = study.federation
    if isinstance(federation, schema.PhantomFederation):
        return _phantoms(study, federation, task)
    if isinstance(federation, schema.ManifestFederation):
        return _manifest_sites(study, federation, home)
    assert isinstance(federation, schema.MedmnistFederation)
    return _medmnist_sites(study, federation, home)


def _phantoms(
    study: schema.Study, federation: schema.PhantomFederation, task: Task
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    sources = {}
    for name, phantom in federation.hospitals.items():
        values = asdict(phantom) | {"images_per_patient": tuple(phantom.images_per_patient)}
        folder = Path(study.output_dir).resolve() / "phantoms" / f"{task.name}-{_short(values)}-seed{study.seed}" / name
        task.draw_phantom(folder, PhantomHospital(name=name, **values), study.seed)
        source = {"kind": "folder", "path": str(folder / "dicom"), "labels": str(folder / "labels.csv")}
        sources[name] = [source | {"task": task.name, "issuer": name}]
    return sources, ["Hospitals and patients are phantoms: drawn by a program, no real person is in them."]


def _manifest_sites(
    study: schema.Study, federation: schema.ManifestFederation, home: Path
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    columns = [federation.site_column, federation.patient_column, federation.label_column, *federation.where]
    folder = Path(study.data_root).resolve()
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for row in read_manifest(folder, columns):
        if all(row[column] in values for column, values in federation.where.items()):
            votes[row[federation.patient_column].strip()][row[federation.site_column].strip()] += 1
    # A patient must not be trained on in one hospital and validated with in another.
    owner = {patient: min(sites, key=lambda site: (-sites[site], site)) for patient, sites in votes.items()}
    moved = sum(len(sites) > 1 for sites in votes.values())
    sources = {}
    for site in sorted(set(owner.values())):
        patients = home / f"{site}.patients.txt"
        patients.write_text("\n".join(sorted(p for p, s in owner.items() if s == site)), "utf-8")
        sources[site] = [{
            "kind": "manifest",
            "task": study.task.name,
            "issuer": site,
            "path": str(folder),
            "where": dict(federation.where),
            "patient_column": federation.patient_column,
            "label_column": federation.label_column,
            "patients": str(patients),
            "max_training_patients": federation.max_training_patients.get(site),
        }]
    unknown = federation.max_training_patients.keys() - sources.keys()
    if unknown:
        raise ValueError(f"federation.max_training_patients names {sorted(unknown)}; hospitals are {sorted(sources)}")
    notes = [f"Hospitals are simulated: one for each value of {federation.site_column} in a public set of images."]
    if moved:
        notes.append(f"{moved} patients had images in several of them and were given wholly to one.")
    return sources, notes


def _medmnist_sites(
    study: schema.Study, federation: schema.MedmnistFederation, home: Path
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    archive = Path(study.data_root).resolve() / federation.archive
    probe = MedmnistSource(kind="medmnist", task=study.task.name, issuer="probe", path=archive, indices=archive)
    _, labels = read_archive(probe)
    rng = np.random.default_rng(study.seed)
    left = [list(rng.permutation(np.flatnonzero(labels == label))) for label in (0, 1)]
    prevalence = float(np.mean(labels))
    sources = {}
    for name, size in federation.sizes.items():
        concentration = federation.label_skew * np.array([1 - prevalence, prevalence]) * 2
        positives = round(size * rng.dirichlet(concentration)[1])
        take = [min(size - positives, len(left[0])), min(positives, len(left[1]))]
        chosen = [left[label].pop() for label in (0, 1) for _ in range(take[label])]
        indices = home / f"{name}.indices.txt"
        indices.write_text("\n".join(map(str, sorted(map(int, chosen)))), "utf-8")
        source = {"kind": "medmnist", "task": study.task.name, "issuer": name}
        sources[name] = [source | {"path": str(archive), "indices": str(indices)}]
    return sources, [
        "Hospitals are simulated: cut at random from one public set, with uneven sizes and class balance.",
        "The set tells no patients, so every image counts as one; two images of one child may lie on both sides.",
    ]


def _short(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
