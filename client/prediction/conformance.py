"""The DICOM conformance statement (PS3.2), made from the tables that associations are made from.

Tested in ``tests/client/prediction/test_conformance.py`` against what is negotiated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.uid import UID
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from client.prediction.commitment import reporting_contexts, requesting_contexts
from client.prediction.store import storing_contexts
from client.sources.pacs.association import IMPLEMENTATION, SYNTAXES
from client.sources.pacs.association_client import retrieving_contexts
from client.sources.pacs.dimse_search import UNICODE, searching_contexts
from client.sources.pacs.move import moving_contexts, receiving_contexts
from client.sources.pacs.storage_classes import all_classes


@dataclass(frozen=True)
class Activity:
    """What the application does in one kind of association.

    Attributes:
        name: what it is for.
        contexts: what it proposes or accepts.
        initiates: whether it opens the association.
        receives: SOP classes of which it takes the other role than whoever opens an association usually has, by role
            selection (PS3.7 D.3.3.4).
    """

    name: str
    contexts: Sequence[PresentationContext]
    initiates: bool = True
    receives: frozenset[str] = frozenset()

    def offers(self) -> dict[str, set[str]]:
        """Transfer syntaxes by abstract syntax."""
        found: dict[str, set[str]] = {}
        for context in self.contexts:
            found.setdefault(str(context.abstract_syntax), set()).update(map(str, context.transfer_syntax))
        return found

    def role(self, abstract: str) -> str:
        """SCU or SCP."""
        return "SCU" if self.initiates != (abstract in self.receives) else "SCP"


def activities() -> list[Activity]:
    """All of them. Other image SOP classes than those here are proposed and accepted where an archive tells them."""
    images = all_classes()
    commitment = str(requesting_contexts()[0].abstract_syntax)
    return [
        Activity("Is the archive there (`check`)", [build_context(Verification)]),
        Activity("Search", searching_contexts()),
        Activity("Retrieve by C-GET", retrieving_contexts(images, SYNTAXES), receives=frozenset(images)),
        Activity("Retrieve by C-MOVE: request (`retrieve: move`)", moving_contexts()),
        Activity("Retrieve by C-MOVE: receive at `receive_at`", receiving_contexts(images), initiates=False),
        Activity("Store reports and segmentations (`predict --store`)", storing_contexts()),
        Activity("Storage Commitment: request (`storage_commitment`)", requesting_contexts()),
        Activity("Storage Commitment: report at `receive_at`", reporting_contexts(), False, frozenset({commitment})),
    ]


_HEAD = f"""# DICOM conformance statement

Made by `consilium-site conformance` from the tables that the program itself uses (PS3.2). Consilium retrieves images
from an archive to train on them inside the hospital, and on request stores reports (Enhanced SR, TID 1500, as IHE AI
Results describes) and segmentations there. **Not for clinical use.**

| | |
|---|---|
| application context | 1.2.840.10008.3.1.1.1 |
| implementation class UID | {PYNETDICOM_IMPLEMENTATION_UID} |
| implementation version name | {IMPLEMENTATION} |
| AE title | `calling_ae`, CONSILIUM by default; called AE title `called_ae` |
| PDU length | no limit is announced |
| associations at once | one for requests; at `receive_at` up to 10, from `senders` only |
| asynchronous operations, user identity, SOP class extended negotiation | none |

## SOP classes and roles
"""
_TAIL = f"""
## Information models

| service | how it is used |
|---|---|
| C-FIND | Study Root, levels STUDY, SERIES, IMAGE; single values, UIDs, ranges of StudyDate |
| C-GET | Study Root, level IMAGE, one instance each; one context per transfer syntax: nothing is converted |
| C-MOVE | Study Root, level IMAGE, up to 32 instances of a series each; the destination is our own AE title |
| C-STORE as SCP | 0x0000 stored, bit for bit; 0xA700 no room; 0xA900 nobody has asked for it |
| C-STORE as SCU | 0xA700 is tried again; warnings (0xB000, 0xB006, 0xB007) count as stored |
| Storage Commitment | Push Model, one transaction per command; the report may come over either association |
| QIDO-RS, WADO-RS, STOW-RS | PS3.18 sections 10.6, 10.4 (`application/dicom; transfer-syntax=*`), 10.5 |
| UPS-RS | section 11.4, Create Workitem (`workitems`) |

## Security

TLS as PS3.15 B.9 and B.12 (BCP 195, RFC 9325): TLS 1.2 or later, certificate and name of the archive are verified, and
verification is never switched off. A client certificate is sent where one is set. At `receive_at` a certificate of the
archive's authority is required. Without TLS only to this machine itself, or with `insecure: true`. DICOMweb: https,
with a bearer token or HTTP basic authentication from files.

## Character sets

Searches are sent in {UNICODE}. Answers and images may be in any character set of PS3.3 C.12.1.1.2; text goes into
reports and segmentations as the image has it, with its SpecificCharacterSet.
"""


def statement() -> str:
    """The statement, in Markdown."""
    return _HEAD + "".join(map(_section, activities())) + _syntaxes() + _TAIL


def _section(activity: Activity) -> str:
    opened = "Consilium opens the association." if activity.initiates else "The archive opens the association."
    rows = "".join(_rows(activity))
    head = "| SOP class | UID | role | transfer syntaxes |\n|---|---|---|---|\n"
    return f"\n### {activity.name}\n\n{opened}\n\n{head}{rows}"


def _rows(activity: Activity) -> Iterator[str]:
    for abstract, syntaxes in sorted(activity.offers().items()):
        named = "all below" if syntaxes == set(SYNTAXES) else ", ".join(sorted(UID(one).name for one in syntaxes))
        yield f"| {UID(abstract).name} | {abstract} | {activity.role(abstract)} | {named} |\n"


def _syntaxes() -> str:
    """What "all below" means."""
    rows = "".join(f"| {UID(one).name} | {one} |\n" for one in SYNTAXES)
    return f"\n## Transfer syntaxes of images\n\n| name | UID |\n|---|---|\n{rows}"
