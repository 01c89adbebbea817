"""Whether a hospital has enough patients and images to take part in a study of a task.

It is asked when a study is approved, by a person or, in simulation, by itself, and whoever approves is told. An order
is answered without asking: else the code of a refusal would tell, without noise, on which side of the minimum the
number of patients is, and a coordinator would see a single patient leave. Whoever has withdrawn since is missing from
the cohort, and from the cohort only.
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
        found = len({entry.patient for entry in catalog.entries(site, task, side)})
        if found < least:
            raise TooFewPatients(
                f"{site.name} has {found} {side} patient(s) for {task.name}, {least} are needed to take part: ingest "
                "more, or lower policy.min_patients"
            )
