"""Simulated hospitals on one machine: cut from a public set, or drawn by a task's phantom.

Each gets a ``site.yaml`` like a real one, with ``simulated: true`` and a policy that allows just what the study needs.
From there on nothing distinguishes it: the same code reads the file, ingests the source, keeps ledger and audit log,
and answers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from client.cohort.catalog import entries, ingest
from client.cohort.findings import IngestReport
from client.cohort.preparation import Decoding
from client.setup.partition import POOLED, SHUFFLED, partition
from client.setup.provisioning import provision
from client.site import SiteSettings, declared_size, load
from conf import schema
from tasks import task as tasks
from tasks.task import Task

APPROVED_BY_NOBODY = (
    "The simulated hospitals approved this study by themselves (policy.auto_approve): no person was asked."
)

SetupProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class VirtualHospitals:
    """Settings files of the simulated hospitals.

    Attributes:
        federated: by name, those that take part in the study.
        alone: by name, the same hospitals with ledgers of their own and a policy that allows training without noise,
            for the comparison; and imaginary ones with everybody's patients: ``POOLED``, and those of ``shufflings``,
            whose labels are dealt out at random, each time anew.
        reports: by name, what each ingest found.
        sizes: by name, patients that are trained on and validated with, after ``max_training_patients``.
        public_sizes: by name, what the federated ones declare in public: their training patients to one significant
            digit, which a real hospital does not tell.
        notes: sentences that must stand beside every result.
    """

    federated: dict[str, Path]
    alone: dict[str, Path]
    reports: dict[str, IngestReport]
    sizes: dict[str, dict[str, int]]
    public_sizes: dict[str, int]
    notes: list[str] = field(default_factory=list)


def provision_virtual_hospitals(study: schema.Study, folder: Path, progress: SetupProgress) -> VirtualHospitals:
    """Found the study's hospitals and ingest their images.

    Args:
        folder: the study's own folder: settings and ledgers go there. Catalogs are shared by all studies of
            ``output_dir`` on the same data.

    Raises:
        SiteError: images or labels cannot be used, or a study that is resumed has lost a ledger or an audit log.
    """
    task = tasks.get(study.task.name)
    home = Path(study.output_dir).resolve() / "hospitals" / _digest(study)
    home.mkdir(parents=True, exist_ok=True)
    shares = partition(study, task, home)
    everybody = [source for own in shares.sources.values() for source in own]
    common = {"catalog": str(home / "catalog"), "key": str(_simulated_key(home, study.seed))}
    with_noise, without = common | {"policy": _policy(study)}, common | {"policy": _unlimited_policy(study)}
    federated = {
        name: _write(folder / "sites" / f"{name}.yaml", with_noise | _site(study, name, own))
        for name, own in shares.sources.items()
    }
    alone = {
        name: _write(folder / "sites-alone" / f"{name}.yaml", without | _site(study, name, own))
        for name, own in {**shares.sources, POOLED: everybody}.items()
    }
    for number, name in enumerate(shufflings(study), start=1):
        # Called like the pooled one, whose prepared images they share.
        shuffled = without | _site(study, name, everybody) | {"name": POOLED, "shuffled_labels": number}
        alone[name] = _write(folder / "sites-alone" / f"{name}.yaml", shuffled)
    hospitals = {name: load(path) for name, path in federated.items()}
    with ThreadPoolExecutor() as threads:  # books wait for the disk most of the time
        list(threads.map(provision, [*hospitals.values(), *map(load, alone.values())]))
    with Decoding() as decoding:
        reports = {name: ingest(settings, task, progress, decoding) for name, settings in hospitals.items()}
    sizes = {name: _sizes(settings, task) for name, settings in hospitals.items()}
    declared = {name: declared_size(hospitals[name], own["train"]) for name, own in sizes.items()}
    return VirtualHospitals(federated, alone, reports, sizes, declared, [*shares.notes, APPROVED_BY_NOBODY])


def shufflings(study: schema.Study) -> list[str]:
    """Names of the hospitals with labels at random: as many as the study deals them out."""
    count = study.evaluation.shufflings if SHUFFLED in study.evaluation.arms else 0
    return [SHUFFLED if number == 1 else f"{SHUFFLED}.{number}" for number in range(1, count + 1)]


def _sizes(settings: SiteSettings, task: Task) -> dict[str, int]:
    sides = ("train", "validation")
    return {side: len({entry.patient for entry in entries(settings, task, side)}) for side in sides}


def _digest(study: schema.Study) -> str:
    """Names the catalogs: equal for studies that differ only in model, privacy or training."""
    how = ("rounds", "quorum", "deadline_s", "participation", "over_selection")
    who = {**asdict(study.federation), **dict.fromkeys(how, 0)}
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


def _site(study: schema.Study, name: str, sources: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "simulated": True,
        "ledger": f"{name}.ledger.sqlite",
        "audit_log": f"{name}.audit.sqlite",
        "stop_file": f"{name}.STOP",
        "log": f"{name}.log",
        "validation_fraction": study.federation.validation_fraction,
        "sources": sources,
        **_weights(study),
    }


def _weights(study: schema.Study) -> dict[str, Any]:
    """The researcher's own folder of weights, where there is one."""
    if not isinstance(study.model, schema.Deep) or not study.model.weights:
        return {}
    return {"weights": str(Path(study.model.weights).resolve().parent)}


def _policy(study: schema.Study) -> dict[str, Any]:
    """Just what the study needs, so that the caps are as binding in simulation as in a real hospital."""
    epsilons = [e for e in (study.privacy.epsilon, study.evaluation.epsilon) if e is not None]
    caps = {"max_epsilon_study": max(epsilons), "max_epsilon_life": max(epsilons)} if epsilons else {}
    return caps | {
        "tasks": [study.task.name],
        "models": [study.model.name],
        "max_delta": study.privacy.delta,
        "min_patients": study.federation.min_patients if isinstance(study.federation, schema.ManifestFederation) else 5,
        "max_rounds": study.federation.rounds,
        "max_steps": study.training.steps * (2 if isinstance(study.strategy, schema.Ditto) else 1),
        "max_images_per_patient": study.training.images_per_patient,
        "max_upload_bytes": 2**30,
        "scores": "exact" if study.evaluation.epsilon is None else "noised",
        "max_bins": max(study.evaluation.bins, schema.paired_bins(study.evaluation) ** 2),
        "subgroups": list(study.evaluation.subgroups),
        "without_privacy": study.privacy.epsilon is None,
        "auto_approve": True,
    }


def _unlimited_policy(study: schema.Study) -> dict[str, Any]:
    """For the comparison arms, which train and score without noise whatever the study itself asks for."""
    arms = {"without_privacy": True, "scores": "exact", "max_bins": max(schema.EXACT_BINS, study.evaluation.bins)}
    return _policy(study) | arms


def _write(path: Path, settings: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return path
