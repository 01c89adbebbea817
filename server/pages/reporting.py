"""What a paper must say of a prediction model, and where this report says it or does not; and what the label means.

TRIPOD+AI: Collins et al., BMJ 2024;385:e078378; the items are told in short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import tasks as package
from server.results.results import Results
from tasks.machine.language import say
from tasks.task import Task

_PEOPLE = "people must write it"
_HOSPITALS = "known at the hospitals only"


@dataclass(frozen=True)
class Item:
    """One item: where it is, or why it is ``missing``."""

    number: str
    asks: str
    where: str = ""
    missing: str = ""


_REPORT, _CONFIG = "“Hospital by hospital”", "“The whole configuration”"
_CALIBRATION = "“Do scores mean what they say?”"
ITEMS = (
    Item("1", "title: a prediction model, its target population and outcome", "the heading"),
    Item("2", "abstract", missing=_PEOPLE),
    Item("3a", "healthcare context and rationale", missing=_PEOPLE),
    Item("3b", "target population, intended purpose and users", "“Intended use”; the population: " + _PEOPLE),
    Item("3c", "known health inequalities", missing=_PEOPLE),
    Item("4", "objectives", "the heading, “In short”"),
    Item("5a", "sources of data and their representativeness", "“Patients”, notes at the top"),
    Item("5b", "dates of the data", missing=f"{_HOSPITALS} (consilium-site describe)"),
    Item("6a", "setting: number and kind of centres", "“Patients”; the kind: " + _PEOPLE),
    Item("6b", "eligibility", "the acquisition contract, “How to check and repeat it”"),
    Item("6c", "treatments", missing=_HOSPITALS),
    Item("7", "data preparation and quality", "the acquisition contract; the task's code"),
    Item("8a", "the outcome and how it is assessed", "“Reference standard”"),
    Item("8b", "who assessed it, where that is a judgement", missing=f"{_HOSPITALS}; labels.md says who should"),
    Item("8c", "blinding of that", missing=f"{_HOSPITALS}; labels.md says how it should be"),
    Item("9a", "choice of predictors", "images alone; the network, " + _CONFIG),
    Item("9b", "definition of predictors", "the acquisition contract and the task's code"),
    Item("9c", "who assessed predictors", "nobody: a program reads the images"),
    Item("10", "sample size and how it was arrived at", "“Patients”; how: " + _PEOPLE),
    Item("11", "missing data", "images without a label or a readable image are left out, “Patients”"),
    Item("12a", "division of the data", "“Patients”: by patient, once for all studies"),
    Item("12b", "handling of predictors", "the task's code"),
    Item("12c", "the model, its building, tuning and internal validation", _CONFIG),
    Item("12d", "heterogeneity across clusters", missing="one hospital"),
    Item("12e", "measures of performance", "“How each figure is computed”"),
    Item("12f", "model updating", missing="scores are not calibrated"),
    Item("12g", "how predictions were computed in evaluation", "the same network at each hospital; the code's digest"),
    Item("13", "class imbalance", "prevalence, “Patients”; nothing is resampled unless the configuration says so"),
    Item("14", "fairness", missing="no subgroups were analysed (evaluation.subgroups)"),
    Item("15", "the model's output and thresholds", "“At the operating threshold”"),
    Item("16", "differences between development and evaluation data", "other patients of the same hospitals"),
    Item("17", "ethical approval and consent", missing=_PEOPLE),
    Item("18a", "funding", missing=_PEOPLE),
    Item("18b", "conflicts of interest", missing=_PEOPLE),
    Item("18c", "protocol", "the study document that hospitals approve"),
    Item("18d", "registration", missing=_PEOPLE),
    Item("18e", "data sharing", "no image leaves a hospital"),
    Item("18f", "code sharing", "the code's digest, “How to check and repeat it”"),
    Item("19", "patient and public involvement", missing=_PEOPLE),
    Item("20a", "flow of participants", "“Patients”; those left out: " + _HOSPITALS),
    Item("20b", "characteristics of participants", missing=f"{_HOSPITALS} (consilium-site describe)"),
    Item("20c", "development and evaluation compared", "one division of the same patients"),
    Item("21", "participants and events in each analysis", f"{_REPORT}, “Patients”"),
    Item("22", "the full model", "model.safetensors and its card"),
    Item("23a", "performance with confidence intervals", f"{_REPORT}, “At the operating threshold”"),
    Item("23b", "heterogeneity in performance", missing="one hospital"),
    Item("24", "results of updating", missing="scores could not be calibrated"),
    Item("25", "interpretation", missing="there is no other model to compare with; " + _PEOPLE),
    Item("26", "limitations", "“Read this first”; the model card"),
    Item("27a", "input of poor quality or unavailable", "the contract refuses it; predict says what it left out"),
    Item("27b", "users' expertise and interaction", missing=_PEOPLE),
    Item("27c", "next steps", missing=_PEOPLE),
)  # fmt: skip
"""As they are where a study has nothing that ``_told_by`` needs."""


def tripod(results: Results) -> list[Item]:
    """All items, in order."""
    told = _told_by(results)
    return [replace(item, where=told[item.number], missing="") if item.number in told else item for item in ITEMS]


WHERE = {
    "12d": _REPORT,
    "23b": _REPORT,
    "14": "“Subgroups”",
    "20b": "“Subgroups”",
    "12f": _CALIBRATION,
    "15": f"“At the operating threshold”, {_CALIBRATION}",
    "24": _CALIBRATION,
    "25": "verdicts, “In short”",
}
"""Where items are that only some studies tell."""


def _told_by(results: Results) -> dict[str, str]:
    told: list[str] = []
    if len(results.arms.get("federated", {})) > 1:
        told += ["12d", "23b"]
    if any(group.figures for group in results.groups):
        told += ["14", "20b"]
    if results.recalibrated is not None:
        told += ["12f", "15", "24"]
    if results.gains:
        told.append("25")
    return {number: WHERE[number] for number in told}


def reference(task: Task) -> list[str]:
    """What decides the label, point by point, from the task's page for those who write it; where an installation lacks
    the page, that it does."""
    page = Path(package.__path__[0]) / task.name / "labels.md"
    if not page.is_file():
        return [say("{file} is not part of this installation.", file=page.name)]
    section = re.search(r"^## The reference\n(.*?)(?=^## |\Z)", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return list(_points(section[1])) if section is not None else []


def _points(markdown: str) -> Iterator[str]:
    """Paragraphs and list items, each as one line of plain text."""
    for block in re.split(r"\n\s*\n|\n(?=- |\d+\. |\|)", markdown.strip()):
        line = " ".join(re.sub(r"^(- |\d+\. )", "", block.strip()).split())
        if line and not line.startswith("|"):
            yield re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line.replace("**", "").replace("`", ""))
