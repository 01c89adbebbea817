"""An image stored here as DICOM files, by its identifiers: input of a prediction, and what is left out of it.

Unlike the catalog this knows patients and images by their identifiers, because a report must contain them. It is made
for one prediction and not stored.

Tested in ``tests/client/prediction/test_scan_list.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom import Dataset

from client.cohort import index, people
from client.cohort.cache import ExampleCache
from client.cohort.intake import keyed
from client.cohort.withdrawals import withdrawn
from client.site import SiteSettings, secret
from client.sources.files.examinations import ReadStacks
from client.sources.visit import Sighting
from tasks.task import Task

ScoringProgress = Callable[[str, int, int], None]
"""Called with a label, how much is done and the total."""


@dataclass(frozen=True)
class LocalImage:
    """One frame to score, or one scan, represented by its middle frame.

    Attributes:
        patient, study, uid, accession, study_date: as the file has them.
        name: the image's among all of its source.
        path, frame, frames: the file, the frame that is scored (from 0), and how many it has.
        warned: rules of the contract that warn of it.
        bits_stored: for the rules about pixels; ``None`` where those were checked already.
        example: the prepared example, where the catalog has one.
        trained: the patient is on the training side of this hospital's split.
        beside: other frames of the file that the task reads together with it.
        scan: reads the scan; ``None`` of a picture.
        without: the task's sequences that the scan does not have.
    """

    patient: str
    study: str
    uid: str
    name: str
    accession: str
    study_date: str
    path: Path
    frame: int
    frames: int
    warned: tuple[str, ...] = ()
    bits_stored: int | None = None
    example: Path | None = None
    trained: bool = False
    beside: tuple[int, ...] = ()
    scan: ReadStacks | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """What is not scored or not used, and why: a contract rule or a reader's reason. For a scan it may be one series or
    outline, or the whole scan."""

    patient: str
    path: Path
    reason: str


@dataclass
class Worklist:
    """Images to score, and what is left out."""

    images: list[LocalImage] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, one: LocalImage | LeftOut) -> None:
        """Add an image, or what is left out."""
        if isinstance(one, LeftOut):
            self.left_out.append(one)
        else:
            self.images.append(one)


class Catalogued:
    """What the catalog knows about one source's images."""

    def __init__(self, site: SiteSettings, task: Task, issuer: str, source: str) -> None:
        """Read it.

        Args:
            source: path of the source, as its settings have it.
        """
        self._key, self._cache, self._issuer, self._source = secret(site), ExampleCache(site, task), issuer, source
        with index.opened(site) as opened:
            self._known = {image.image: image for image in opened.images(task.name, [issuer])}
            self._sides = opened.sides(task.name, [issuer])

    def settled(self, image: LocalImage, own: str) -> LocalImage | LeftOut:
        """The image with its example, or why it has none.

        Args:
            own: what the catalog's signature must begin with if the files are as they were; outlines may follow.
        """
        row = self._known.get(keyed(self._key, "image", self._issuer, image.name))
        if row is None:
            return LeftOut(image.patient, image.path, "NOT_IN_CATALOG")
        kept = self._cache.name(self._source, image.name, row.signature)
        if not row.signature.startswith(own) or row.example != kept:
            return LeftOut(image.patient, image.path, "CHANGED_SINCE_INGEST")
        if not row.usable:
            return LeftOut(image.patient, image.path, next(iter(row.rejected), row.unreadable or "NOT_USABLE"))
        trained, example = self._sides.get(row.patient) == "train", self._cache.path(kept)
        return replace(image, warned=row.warned, trained=trained, example=example)


def on_training_side(site: SiteSettings, task: Task) -> Callable[[str], bool]:
    """Tells of a PatientID whether any source of the task has it on the training side of the split."""
    issuers = [source.issuer for source in site.sources if source.task == task.name]
    with index.opened(site) as opened:
        sides = opened.sides(task.name, issuers)

    def trained(patient: str) -> bool:
        with people.opened(site) as known:  # under whatever number
            return any(sides.get(one) == "train" for one in known.pseudonyms(issuers, [patient]))

    return trained


Unwilling = Callable[[Sighting], bool]
"""Whether an image is of a patient who has withdrawn."""


@contextmanager
def unwilling_at(site: SiteSettings, task: Task) -> Iterator[Unwilling]:
    """Tells of an image whether its patient has withdrawn: by the file's number, by another one of the same person, or
    because the image or its examination was known under the number of one who has.

    Raises:
        SiteMisconfigured: the list cannot be used.
    """
    numbers = withdrawn(site)
    issuers = list(dict.fromkeys(source.issuer for source in site.sources if source.task == task.name))
    with people.opened(site) as known:
        persons = known.pseudonyms(issuers, numbers)

        def unwilling(one: Sighting) -> bool:
            return one.patient in numbers or any(
                known.is_one_of(replace(one, issuer=issuer), persons) for issuer in issuers if persons
            )

        yield unwilling


def text_of(header: Dataset, keyword: str) -> str:
    """An attribute as text; "" if it is missing or invalid."""
    try:
        return str(header.get(keyword) or "").strip()
    except Exception:  # pydicom converts values when they are asked for, and a broken one may raise anything
        return ""
