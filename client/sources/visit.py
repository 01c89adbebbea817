"""How a source is visited, and whom it shows.

Tested in ``tests/client/sources/pacs/test_walk.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client.sources.header_cache import HeaderCache


@dataclass(frozen=True)
class Sighting:
    """A patient as a source shows them in one image.

    Attributes:
        patient: PatientID.
        issuer: whose number that is.
        image: SOPInstanceUID, or what else names the image in its source.
        study, accession: of its examination; "" where the source does not tell.
        born, sex: PatientBirthDate and PatientSex, likewise.
    """

    patient: str
    issuer: str
    image: str
    study: str = ""
    accession: str = ""
    born: str = ""
    sex: str = ""


@dataclass(frozen=True)
class Visit:
    """How a source is visited.

    Attributes:
        key: the hospital's secret, under which Consilium's own objects are recognised.
        unwilling: whether an image is of a patient who has withdrawn, also under another number.
        known_as: of an issuer's numbers, makes what tells by which of them an image's patient is known; "" if by none.
        surviving: numbers by those that were merged into them, as the hospital's own list says.
        verify: retrieve everything again and compare it.
        accept_shrink: a person has said that what is gone from the archive is to be deleted here.
        headers: what earlier visits have read in headers of files.
        progress: called with what is being done, how much is done and the total.
    """

    key: bytes = b""
    unwilling: Callable[[Sighting], bool] = lambda sighting: False
    known_as: Callable[[str, Iterable[str]], Callable[[Sighting], str]] = lambda issuer, numbers: lambda sighting: ""
    surviving: Mapping[str, str] = field(default_factory=dict)
    verify: bool = False
    accept_shrink: bool = False
    headers: HeaderCache | None = None
    progress: Callable[[str, int, int], None] = lambda label, done, total: None
