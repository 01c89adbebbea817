"""Who takes part, and when a round counts: one class for each place that hospitals come from.

Tested in ``tests/conf/test_load.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from conf.schema.constraints import (
    MISSING,
    Attempts,
    Count,
    CountOrNone,
    HospitalName,
    NotNegative,
    Part,
    Positive,
    Range,
    SettingsGroup,
    Share,
    ShareOrNone,
    Steps,
    Wait,
    WaitOrNone,
    rule,
)

_NAMED = rule("name at least one hospital", bool)
_SIMULATED_DEADLINE_S = 86400.0
"""Simulated hospitals take turns on one machine: which of them answers within minutes would be the machine's doing."""


@dataclass
class Federation(SettingsGroup):
    """Who takes part, and when a round counts."""

    kind: str = MISSING
    """``phantom``, ``manifest`` or ``medmnist``: where the simulated hospitals get their patients; ``enrolled``: the
    hospitals are real."""
    rounds: Steps = 10
    """Rounds of training; the privacy of the whole study is planned over them."""
    quorum: Share = 0.5
    """Smallest fraction of the invited hospitals whose updates make a round."""
    deadline_s: Wait = 600.0
    """Seconds after which a round closes without those who have not answered."""
    participation: Share = 1.0
    """Fraction of the hospitals, rounded down, whose updates a round wants. They take turns, and each plans its noise
    for its own turns only."""
    over_selection: NotNegative = 0.0
    """So many more are invited, as a fraction of those that are wanted; the round closes when enough have answered.
    Whoever is invited spends privacy, in time or late, and plans its noise for that."""
    late_rounds: CountOrNone = 0
    """For how many rounds after its own a late update is still taken: it is folded into the round that it comes in, at
    a discount that grows with its age. 0 drops what is late. Not for ``scaffold``, ``cyclic`` and robust strategies."""
    validation_fraction: Part = 0.4
    """Fraction of each hospital's patients that is never trained on."""


@dataclass
class Phantom(SettingsGroup):
    """An invented hospital, as ``tasks.task.PhantomHospital`` explains."""

    patients: Count
    """How many patients are drawn."""
    prevalence: ShareOrNone = 0.35
    """Expected fraction of patients with the positive class."""
    gain: Positive = 1.0
    """Overall brightness of the scanner; 1 is neutral."""
    frequency_mhz: Positive = 10.0
    """Centre frequency of the transducer; higher means finer speckle and less depth."""
    images_per_patient: Range = (1, 4)
    """The least and the most images of one patient."""
    positives: CountOrNone | None = None
    """Exactly so many patients have the positive class, whatever ``prevalence`` says; for rare findings."""


@dataclass(kw_only=True)
class PhantomFederation(Federation):
    """Hospitals drawn by the task's own phantom: no real patient is involved."""

    kind: str = "phantom"
    """Set by the choice."""
    deadline_s: Wait = _SIMULATED_DEADLINE_S
    """As of every federation, and by default a day."""
    hospitals: Annotated[dict[HospitalName, Phantom], _NAMED]
    """One phantom for each hospital's name."""


@dataclass
class ManifestFederation(Federation):
    """Simulated hospitals from one table of images, in ``data_root``: one for each value of a column, or dealt out."""

    kind: str = "manifest"
    """Set by the choice."""
    deadline_s: Wait = _SIMULATED_DEADLINE_S
    """As of every federation, and by default a day."""
    table: str = "manifest.csv"
    """The CSV or TSV in ``data_root``, one line an image."""
    file_column: str = "file"
    """Column that names an image's file."""
    file_pattern: str = "{}"
    """Where that file lies in ``data_root``: ``{}`` stands for ``file_column``, ``{NAME}`` for another column."""
    site_column: str = "site"
    """Column whose values become the hospitals."""
    patient_column: str = "patient_id"
    """Column that names the patient: rows with one value are one patient."""
    blocks: CountOrNone = 0
    """Instead of by a column, patients are dealt out to so many hospitals, by a digest of their names; 0 does not."""
    label_column: str = "label"
    """Column with the label: 0 or 1, the task's own words, or those that follow."""
    positive: list[str] = field(default_factory=list)
    """Words of it that mean yes."""
    negative: list[str] = field(default_factory=list)
    """Words of it that mean no."""
    left_out_labels: list[str] = field(default_factory=list)
    """Words of images that are not used."""
    label_words: dict[str, str] = field(default_factory=dict)
    """Of a question with another answer than yes or no: what words of it mean, such as ``{2: benign}``."""
    finding_columns: dict[str, str] = field(default_factory=dict)
    """Of a secondary finding of the task the column with 0, 1 or nothing."""
    mask_columns: dict[str, str] = field(default_factory=dict)
    """Of each structure of the task the column that names its mask files, ``;`` between several."""
    split_column: str = ""
    """Column of a published split; without it the hospitals divide their patients themselves."""
    split_sides: dict[str, str] = field(default_factory=dict)
    """What each word of that column means: train, validation or leave_out; the usual words need no entry."""
    where: dict[str, list[str]] = field(default_factory=dict)
    """Keep only rows whose column has one of these values."""
    max_training_patients: dict[str, Count] = field(default_factory=dict)
    """Makes a hospital small: at most so many of its patients are trained on; its validation patients all stay."""
    min_patients: Count = 5
    """With fewer patients to train on a simulated hospital refuses, as its policy says."""


@dataclass(kw_only=True)
class MedmnistFederation(Federation):
    """Simulated hospitals cut from one MedMNIST archive in ``data_root``; every image counts as a patient."""

    kind: str = "medmnist"
    """Set by the choice."""
    deadline_s: Wait = _SIMULATED_DEADLINE_S
    """As of every federation, and by default a day."""
    archive: str
    """File name of the ``.npz``."""
    sizes: Annotated[dict[HospitalName, Count], _NAMED]
    """Number of patients for each hospital's name."""
    whole: bool = False
    """Deal out all of the archive: ``sizes`` are then to each other as the hospitals are."""
    label_skew: Positive = 1.0
    """Concentration of the Dirichlet draw of class balance; small is skewed, large is even."""
    split_sides: dict[str, str] = field(default_factory=dict)
    """What becomes of the archive's parts train, val and test: train, validation or leave_out. A part without an entry
    is divided by the hospitals themselves."""


@dataclass
class EnrolledFederation(Federation):
    """Hospitals that were admitted to a server: real ones, which approve the study before they answer."""

    kind: str = "enrolled"
    """Set by the choice."""
    hospitals: list[HospitalName] = field(default_factory=list)
    """Names of those who are invited; empty invites all who were admitted when the study is first started."""
    patience_s: WaitOrNone = 180.0
    """Seconds that an order waits for hospitals that are away before it goes out without them."""
    attempts: Attempts = 3
    """How often a round is played in all when too few have answered. Whoever has answered it sends the stored answer
    again, which costs no privacy."""


def named_hospitals(federation: Federation) -> list[str]:
    """The hospitals that the configuration itself names; none where others decide."""
    match federation:
        case PhantomFederation() | EnrolledFederation():
            return list(federation.hospitals)
        case MedmnistFederation():
            return list(federation.sizes)
    return []
