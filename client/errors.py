"""Everything that can go wrong at a hospital, by name.

    SiteError                      code that may leave
    ├── BadOrder                   BAD_ORDER            the order is malformed or names what does not exist
    ├── OtherRelease               OTHER_RELEASE        the study was written for another release than this one
    ├── NotPermitted               NOT_PERMITTED        the hospital's policy says no
    │   └── AlreadyAnswered                             the order was answered, and later orders have replaced the reply
    ├── NotApproved                NOT_APPROVED         nobody at the hospital has approved the study
    ├── Stopped                    STOPPED              the hospital has stopped: nothing leaves
    ├── BudgetExhausted            BUDGET_EXHAUSTED     the ledger has no privacy budget left for it
    ├── LedgerBroken               LEDGER_BROKEN        ledger or audit log cannot be relied on
    │   ├── LedgerMissing                               a file is not there; nothing is made in its place
    │   ├── LedgerTampered                              rows are not as they were written
    │   ├── LedgerRolledBack                            an older copy was put back
    │   └── LedgerUnwritable                            the disk is full or read-only
    ├── LedgerBehind                LEDGER_BEHIND         the server has seen a row of the ledger that is not in it
    ├── NoCohort                   NO_COHORT            there is nobody to train on or to score
    │   ├── CatalogStale                                nothing was ingested, or under another contract
    │   ├── ContractNotMet                              too few images are as the task's contract wants them
    │   ├── ArchiveUnreachable                          the archive does not answer, however often it is asked
    │   ├── EmptySource                                 no image where images should be
    │   ├── LabelsMatchNothing                          images and labels have no patient in common
    │   ├── TooFewPatients                              fewer than the policy's minimum: no study can be approved
    │   └── SamePersonTwice                             two issuers' patients look like one, and nobody has signed
    ├── ModelRefused               MODEL_REFUSED        not private, or not the model that was meant
    ├── UpdateNotFinite            UPDATE_NOT_FINITE    training diverged
    ├── NotHeld                    NOT_HELD             the order says how a model has changed that is not held here
    └── SiteMisconfigured          SITE_MISCONFIGURED   site.yaml, the key or a file it names is wrong
        ├── TermsChanged                                site.yaml is not what the ledger's sums rest on
        ├── KeptLost                                    what the hospital keeps of a study is gone or broken
        ├── CacheFull                                   prepared images do not fit into what they may take
        ├── CacheDamaged                                a prepared image is gone or broken
        ├── ArchiveRefused                              the archive does not accept our name or our credentials
        └── SpoolFull                                   what is retrieved does not fit on the disk we may use

The text of an error is for the hospital's own eyes: it may name files and counts. Only the code leaves.
"""

from __future__ import annotations

from tasks.protocol.wire import ErrorCode


class SiteError(Exception):
    """Base of all; unnamed faults are INTERNAL."""

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


class CatalogStale(NoCohort):
    pass


class ContractNotMet(NoCohort):
    pass


class ArchiveUnreachable(NoCohort):
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
