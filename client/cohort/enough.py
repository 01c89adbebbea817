"""Whether a hospital has enough patients and images to take part in a study of a task.

This is checked when a study is approved, by a person or, in simulation, automatically; whoever approves sees the
result. It is not checked for an order: otherwise the refusal's code would reveal, without noise, on which side of the
minimum the number of patients is, and a coordinator could see a single patient leave. Patients who have withdrawn since
are missing from the cohort, with no other effect.

Tested in ``tests/client/cohort/test_catalog.py``.
"""

from __future__ import annotations

from client.cohort import catalog
from client.errors import TooFewPatients
from client.site import SiteSettings
from tasks.task import Task


def require_enough(site: SiteSettings, task: Task) -> None:
    """Pass if the hospital can take part.

    Raises:
        CatalogStale, ContractNotMet: see ``client.cohort.catalog.require_contract``.
        TooFewPatients: fewer training patients than the policy's minimum, or nobody to score.
    """
    catalog.require_contract(site, task)
    for side, least in (("train", site.policy.min_patients), ("validation", 1)):
        patients = len({entry.patient for entry in catalog.entries(site, task, side)})
        if patients < least:
            raise TooFewPatients(
                f"{site.name} has {patients} {side} patient(s) for {task.name}, {least} are required to take part: "
                "ingest more, or lower policy.min_patients"
            )
