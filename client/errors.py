"""All errors of a hospital's side, by name.

    SiteError                      code that may leave
    ├── BadOrder                   BAD_ORDER            the order is malformed or names what does not exist
    ├── OtherRelease               OTHER_RELEASE        the study was written for a different release
    ├── NotPermitted               NOT_PERMITTED        the hospital's policy forbids it
    │   └── AlreadyAnswered                             the order was answered before, and its reply is no longer kept
    ├── NotApproved                NOT_APPROVED         nobody at the hospital has approved the study
    │   └── Uninformative                               its figures would tell nothing: approved only if that is said
    ├── Stopped                    STOPPED              the hospital is stopped: nothing leaves
    ├── BudgetExhausted            BUDGET_EXHAUSTED     not enough privacy budget is left
    ├── LedgerBroken               LEDGER_BROKEN        ledger or audit log cannot be trusted
    │   ├── LedgerMissing                               a file is missing; it is not recreated
    │   ├── LedgerTampered                              rows were changed after they were written
    │   ├── LedgerRolledBack                            an older copy was restored
    │   └── LedgerUnwritable                            the disk is full or read-only
    ├── LedgerBehind               LEDGER_BEHIND        the server has seen a ledger row that the ledger lacks
    ├── NoCohort                   NO_COHORT            no patients to train on or to score
    │   ├── CatalogStale                                nothing was ingested, or under a different contract
    │   ├── ContractNotMet                              too few images meet the task's contract
    │   ├── ArchiveUnreachable                          the archive does not answer, even after retries
    │   ├── AnswerIncomplete                            the archive leaves out examinations, and says so
    │   ├── ArchiveShrunk                               much is gone from the archive; a person must confirm it
    │   ├── EmptySource                                 a source has no images
    │   ├── LabelsMatchNothing                          images and labels have no patient in common
    │   ├── TooFewPatients                              fewer than policy.min_patients: no study can be approved
    │   └── SamePersonTwice                             patients of two issuers may be one person; not signed yet
    ├── ModelRefused               MODEL_REFUSED        cannot be trained privately, or not the expected model
    ├── UpdateNotFinite            UPDATE_NOT_FINITE    training diverged
    ├── PeersRefused               PEERS_REFUSED        a secure sum with others than the pinned peers, or with too few
    ├── TagUsed                    TAG_USED             a secure sum's round and attempt were used before, or later ones
    ├── NotHeld                    NOT_HELD             the order brings changes to a model that is not cached here
    └── SiteMisconfigured          SITE_MISCONFIGURED   site.yaml, the key or a file it names is invalid
        ├── TermsChanged                                site.yaml differs from the ledger's terms
        ├── KeptLost                                    the hospital's own state of a study is missing or damaged
        ├── CacheFull                                   prepared images exceed max_cache_gigabytes
        ├── CacheDamaged                                a prepared image is missing or damaged
        ├── ArchiveRefused                              the archive rejects our AE title or credentials
        └── SpoolFull                                   retrieved images exceed the spool's limit or the disk

An error's text is for hospital staff only: it may name files and counts. Only the code leaves.

Tested in ``tests/client/test_app.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

from tasks.protocol.wire import ErrorCode


class SiteError(Exception):
    """Base of all; its own code is INTERNAL."""

    code = ErrorCode.INTERNAL


class BadOrder(SiteError):
    code = ErrorCode.BAD_ORDER


class OtherRelease(SiteError):
    code = ErrorCode.OTHER_RELEASE


class NotPermitted(SiteError):
    code = ErrorCode.NOT_PERMITTED


class AlreadyAnswered(NotPermitted):
    pass


class NotApproved(SiteError):
    code = ErrorCode.NOT_APPROVED


class Uninformative(NotApproved):
    """For whoever approves; no order is answered with it."""


class Stopped(SiteError):
    code = ErrorCode.STOPPED


class BudgetExhausted(SiteError):
    code = ErrorCode.BUDGET_EXHAUSTED


class LedgerBroken(SiteError):
    code = ErrorCode.LEDGER_BROKEN


class LedgerBehind(SiteError):
    code = ErrorCode.LEDGER_BEHIND


class LedgerMissing(LedgerBroken):
    pass


class LedgerRolledBack(LedgerBroken):
    pass


class LedgerTampered(LedgerBroken):
    pass


class LedgerUnwritable(LedgerBroken):
    pass


class NoCohort(SiteError):
    code = ErrorCode.NO_COHORT

    def __init__(self, message: str = "", left_out: Mapping[str, int] | None = None) -> None:
        """``left_out``: why images could not be used, counted by reason, for a table with remedies."""
        super().__init__(message)
        self.left_out = {reason: number for reason, number in (left_out or {}).items() if number > 0}


class CatalogStale(NoCohort):
    pass


class ContractNotMet(NoCohort):
    pass


class ArchiveUnreachable(NoCohort):
    pass


class AnswerIncomplete(NoCohort):
    pass


class ArchiveShrunk(NoCohort):
    pass


class EmptySource(NoCohort):
    pass


class LabelsMatchNothing(NoCohort):
    pass


class TooFewPatients(NoCohort):
    pass


class SamePersonTwice(NoCohort):
    pass


class ModelRefused(SiteError):
    code = ErrorCode.MODEL_REFUSED


class UpdateNotFinite(SiteError):
    code = ErrorCode.UPDATE_NOT_FINITE


class PeersRefused(SiteError):
    code = ErrorCode.PEERS_REFUSED


class TagUsed(SiteError):
    code = ErrorCode.TAG_USED


class NotHeld(SiteError):
    code = ErrorCode.NOT_HELD


class SiteMisconfigured(SiteError):
    code = ErrorCode.SITE_MISCONFIGURED


class TermsChanged(SiteMisconfigured):
    pass


class KeptLost(SiteMisconfigured):
    pass


class CacheFull(SiteMisconfigured):
    pass


class CacheDamaged(SiteMisconfigured):
    pass


class ArchiveRefused(SiteMisconfigured):
    pass


class SpoolFull(SiteMisconfigured):
    pass
