"""Phantoms of a task as a hospital would prepare them: nobody's images, for fitting what must not see patients.

Tested in ``tests/server/test_encoder.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from client.cohort.cache import load_example
from client.cohort.catalog import entries, ingest
from client.setup.provisioning import provision
from client.site import SiteSettings, load
from tasks import task as tasks
from tasks.task import PhantomHospital, Task

SEED = 90_210
"""No study's: whoever fits something to these phantoms has not seen those that a study is tried on."""
_SCANNERS = {"first": (1.0, 10.0), "second": (1.2, 12.0), "third": (0.85, 7.5), "fourth": (1.1, 9.0)}
"""Gain and frequency in MHz."""


def drawn(name: str, number: int) -> Tensor:
    """So many images of a task's phantoms, one a patient, half of them positive: float32 (images, channels, ...).

    Raises:
        SiteError, NoPhantoms: they cannot be drawn or prepared.
    """
    task = tasks.get(name)
    with tempfile.TemporaryDirectory() as folder:
        settings = _hospital(task, Path(folder), -(-number // len(_SCANNERS)))
        ingest(settings, task)
        found = [entry for side in ("train", "validation") for entry in entries(settings, task, side)]
        examples = [load_example(entry.example) for entry in sorted(found, key=lambda entry: entry.patient)]
    return torch.from_numpy(np.stack(examples[:number]))


def _hospital(task: Task, folder: Path, patients: int) -> SiteSettings:
    sources: list[dict[str, Any]] = []
    for name, (gain, frequency) in _SCANNERS.items():
        drawn_into = folder / name
        hospital = PhantomHospital(name, patients, 0.5, gain=gain, frequency_mhz=frequency, images_per_patient=(1, 1))
        task.draw_phantom(drawn_into, hospital, SEED)
        files = {"path": str(drawn_into / "dicom"), "labels": str(drawn_into / "labels.csv")}
        sources.append({"kind": "folder", "task": task.name, "issuer": name, **files})
    site = folder / "site.yaml"
    written = {"name": "phantoms", "simulated": True, "policy": {"tasks": [task.name]}, "sources": sources}
    site.write_text(yaml.safe_dump(written), encoding="utf-8")
    settings = load(site)
    provision(settings)
    return settings
