"""Approval: nothing runs that nobody approved, the last word counts, and what waits stays small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import CatalogStale, NotApproved, SiteMisconfigured
from client.ledger.audit_log import AuditLog, Event, Fact, Kind
from client.ledger.records import open_records
from client.oversight import approvals, signature
from client.oversight.approvals import NOBODY, decisions, keep, one_of, require, waiting
from client.site import Policy, SiteSettings, secret
from tasks.protocol.study import StudyDocument, canonical, digest
from tests.client.hospital import draw_archive
from tests.client.surveying import survey

Provision = Callable[..., SiteSettings]


@pytest.fixture
def hospital(provision_hospital: Provision) -> SiteSettings:
    return provision_hospital()


@pytest.fixture
def audit_log(hospital: SiteSettings) -> Iterator[AuditLog]:
    with AuditLog.open(hospital.audit_log, secret(hospital)) as opened:
        yield opened


def test_an_unapproved_study_is_refused_and_waits(
    document: StudyDocument, hospital: SiteSettings, audit_log: AuditLog
) -> None:
    with pytest.raises(NotApproved, match=digest(document)):
        require(document, audit_log, hospital)
    assert waiting(hospital) == {digest(document): canonical(document)}
    assert decisions(audit_log, hospital) == {}


def test_an_approved_study_passes_and_waits_no_longer(
    document: StudyDocument, hospital: SiteSettings, audit_log: AuditLog
) -> None:
    keep(document, hospital)
    approvals.approve(document, "Dr. Ada Noor", audit_log, hospital)
    require(document, audit_log, hospital)
    decision = decisions(audit_log, hospital)[digest(document)]
    assert (decision.by, decision.approved, decision.automatic) == ("Dr. Ada Noor", True, False)
    assert decision.document == canonical(document)
    assert waiting(hospital) == {}


@pytest.mark.parametrize("change", [{"rounds": 3}, {"release": "9.9"}, {"name": "demo-2"}])
def test_approval_is_for_this_very_document(
    document: StudyDocument, hospital: SiteSettings, audit_log: AuditLog, change: dict[str, object]
) -> None:
    approvals.approve(document, "Ada", audit_log, hospital)
    with pytest.raises(NotApproved):
        require(replace(document, **change), audit_log, hospital)  # type: ignore[arg-type]


def test_the_last_word_counts(document: StudyDocument, hospital: SiteSettings, audit_log: AuditLog) -> None:
    approvals.approve(document, "Ada", audit_log, hospital)
    _revoke(hospital, decisions(audit_log, hospital)[digest(document)])
    with pytest.raises(NotApproved, match="revoked by Ben at 20"):
        require(document, audit_log, hospital)
    approvals.approve(document, "Cleo", audit_log, hospital)
    require(document, audit_log, hospital)


def test_a_simulated_hospital_approves_by_itself_and_says_so(
    document: StudyDocument, provision_hospital: Provision, tmp_path: Path
) -> None:
    archive = draw_archive(tmp_path / "archive")
    hospital = provision_hospital(
        simulated=True, policy={"auto_approve": True, "min_patients": 5}, **archive.settings()
    )
    with AuditLog.open(hospital.audit_log, secret(hospital)) as audit_log:
        require(document, audit_log, hospital)
        require(document, audit_log, hospital)
        assert len(audit_log.events()) == 1, "asked and answered once"
        decision = decisions(audit_log, hospital)[digest(document)]
        assert (decision.by, decision.automatic) == (NOBODY, True)
        _revoke(hospital, decision)
        with pytest.raises(NotApproved, match="revoked"):
            require(document, audit_log, hospital)  # nobody's approval does not undo a person's no


def test_a_simulated_hospital_with_too_little_does_not_approve_by_itself(
    document: StudyDocument, provision_hospital: Provision
) -> None:
    hospital = provision_hospital(simulated=True, policy={"auto_approve": True})
    with AuditLog.open(hospital.audit_log, secret(hospital)) as audit_log:
        with pytest.raises(CatalogStale):
            require(document, audit_log, hospital)
        assert audit_log.events() == []


def test_a_simulated_hospital_that_was_not_told_to_approve_does_not(
    document: StudyDocument, provision_hospital: Provision
) -> None:
    hospital = provision_hospital(simulated=True)
    with AuditLog.open(hospital.audit_log, secret(hospital)) as audit_log, pytest.raises(NotApproved):
        require(document, audit_log, hospital)


@pytest.mark.parametrize("by", ["", "  ", "Ada\x1b[2J", "x" * 201, "/home/ada"])
def test_who_decides_is_a_name(document: StudyDocument, hospital: SiteSettings, audit_log: AuditLog, by: str) -> None:
    with pytest.raises(SiteMisconfigured, match="--by"):
        approvals.approve(document, by, audit_log, hospital)
    assert decisions(audit_log, hospital) == {}


def test_the_server_cannot_fill_the_disk(
    document: StudyDocument, hospital: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approvals, "MOST_WAITING", 3)
    asked = [replace(document, name=f"demo-{number}") for number in range(5)]
    for each in asked:
        assert keep(each, hospital)
    assert list(waiting(hospital)) == [digest(each) for each in asked[2:]]
    keep(asked[2], hospital)
    keep(document, hospital)
    assert digest(asked[2]) in waiting(hospital), "what was asked for again is recent again"
    assert not keep(_too_large(document), hospital)


def test_a_study_too_large_to_keep_is_refused_too(
    document: StudyDocument, hospital: SiteSettings, audit_log: AuditLog
) -> None:
    with pytest.raises(NotApproved, match="too large to keep"):
        require(_too_large(document), audit_log, hospital)


def _too_large(document: StudyDocument) -> StudyDocument:
    return replace(document, sizes={f"{number:040}": 200 for number in range(9999)})


def _revoke(hospital: SiteSettings, decision: approvals.Decision) -> None:
    with open_records(hospital.ledger, hospital.audit_log, secret(hospital)) as records:
        assert approvals.revoke(decision, "Ben", records, hospital) == []


@pytest.fixture
def two(provision_hospital: Provision, monkeypatch: pytest.MonkeyPatch) -> SiteSettings:
    """A hospital in which two people must approve, on a machine that knows nobody's login."""
    monkeypatch.setattr(approvals, "login_account", lambda: "")
    monkeypatch.setattr(signature, "login_account", lambda: "")
    return provision_hospital(policy={"approvers": 2})


@pytest.fixture
def log_of_two(two: SiteSettings) -> Iterator[AuditLog]:
    with AuditLog.open(two.audit_log, secret(two)) as opened:
        yield opened


def test_two_people_approve(document: StudyDocument, two: SiteSettings, log_of_two: AuditLog) -> None:
    keep(document, two)
    approvals.approve(document, "Ada Noor", log_of_two, two)
    with pytest.raises(NotApproved, match=r"1 more person must approve, other than Ada Noor \(policy.approvers\)"):
        require(document, log_of_two, two)
    decision = decisions(log_of_two, two)[digest(document)]
    assert (decision.approved, decision.state, decision.missing) == (False, "partly approved", 1)
    assert digest(document) in waiting(two), "it still waits for somebody"
    approvals.approve(document, "Ben Okafor", log_of_two, two)
    require(document, log_of_two, two)
    decision = decisions(log_of_two, two)[digest(document)]
    assert [each.by for each in decision.signatures] == ["Ada Noor", "Ben Okafor"]
    assert (decision.approved, decision.waits_for(), waiting(two)) == (True, "", {})


def test_a_survey_needs_as_many(two: SiteSettings, log_of_two: AuditLog) -> None:
    approvals.approve(survey(), "Ada Noor", log_of_two, two)
    with pytest.raises(NotApproved):
        require(survey(), log_of_two, two)
    approvals.approve(survey(), "Ben Okafor", log_of_two, two)
    require(survey(), log_of_two, two)


@pytest.mark.parametrize("again", ["Ada Noor", "ada  NOOR", "Dr. Ada Noor", "Noor, Ada", "Noor", "\uff21da Noor"])
def test_one_person_counts_once_however_the_name_is_written(
    document: StudyDocument, two: SiteSettings, log_of_two: AuditLog, again: str
) -> None:
    approvals.approve(document, "Ada Noor", log_of_two, two)
    with pytest.raises(NotApproved, match="counts once: 1 more person must approve"):
        approvals.approve(document, again, log_of_two, two)
    assert len(log_of_two.events()) == 1, "nothing was entered"


def test_one_login_account_counts_once_whatever_it_calls_itself(
    document: StudyDocument, two: SiteSettings, log_of_two: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (approvals, signature):
        monkeypatch.setattr(module, "login_account", lambda: "noor")
    approvals.approve(document, "Ada Noor", log_of_two, two)
    with pytest.raises(NotApproved, match="the same login account, noor"):
        approvals.approve(document, "Ben Okafor", log_of_two, two)
    for module in (approvals, signature):
        monkeypatch.setattr(module, "login_account", lambda: "okafor")
    approvals.approve(document, "Ben Okafor", log_of_two, two)
    signed = decisions(log_of_two, two)[digest(document)].signatures
    assert [(each.by, each.account) for each in signed] == [("Ada Noor", "noor"), ("Ben Okafor", "okafor")]


def test_two_signatures_of_one_person_in_the_log_count_once(
    document: StudyDocument, two: SiteSettings, log_of_two: AuditLog
) -> None:
    """Two commands at the same moment both find nobody before them."""
    facts: dict[str, Fact] = {"study": document.name, "digest": digest(document), "automatic": False, "of": 2}
    for name in ("Ada Noor", "ada noor"):
        log_of_two.append_event(Kind.APPROVAL, {**facts, "document": canonical(document), "by": name})
    with pytest.raises(NotApproved, match="1 more person"):
        require(document, log_of_two, two)


def test_anybody_takes_it_back_and_all_approve_anew(
    document: StudyDocument, two: SiteSettings, log_of_two: AuditLog
) -> None:
    for name in ("Ada Noor", "Cleo Marchetti"):
        approvals.approve(document, name, log_of_two, two)
    _revoke(two, decisions(log_of_two, two)[digest(document)])
    with pytest.raises(NotApproved, match="revoked by Ben"):
        require(document, log_of_two, two)
    approvals.approve(document, "Ada Noor", log_of_two, two)
    with pytest.raises(NotApproved, match="1 more person must approve"):
        require(document, log_of_two, two)


def test_half_an_approval_can_be_taken_back_and_waits_no_longer(
    document: StudyDocument, two: SiteSettings, log_of_two: AuditLog
) -> None:
    keep(document, two)
    approvals.approve(document, "Ada Noor", log_of_two, two)
    _revoke(two, decisions(log_of_two, two)[digest(document)])
    assert waiting(two) == {}
    assert decisions(log_of_two, two)[digest(document)].state == "revoked"


def test_a_number_that_is_raised_holds_for_what_was_approved_before(
    document: StudyDocument, hospital: SiteSettings, audit_log: AuditLog
) -> None:
    approvals.approve(document, "Ada Noor", audit_log, hospital)
    require(document, audit_log, hospital)
    raised = _asking(hospital, 2)
    with pytest.raises(NotApproved, match="1 more person must approve, other than Ada Noor"):
        require(document, audit_log, raised)
    assert digest(document) in waiting(raised), "so that another person can review it"


def test_a_number_that_is_lowered_approves_nothing_by_itself(
    document: StudyDocument, two: SiteSettings, log_of_two: AuditLog
) -> None:
    approvals.approve(document, "Ada Noor", log_of_two, two)
    lowered = _asking(two, 1)
    with pytest.raises(NotApproved):
        require(document, log_of_two, lowered)
    approvals.approve(document, "Ada Noor", log_of_two, lowered)
    require(document, log_of_two, lowered)


def test_what_a_simulated_hospital_approved_by_itself_is_nobodys_signature(
    document: StudyDocument, provision_hospital: Provision, tmp_path: Path
) -> None:
    archive = draw_archive(tmp_path / "archive")
    policy = {"auto_approve": True, "min_patients": 5}
    hospital = provision_hospital(simulated=True, policy=policy, **archive.settings())
    with AuditLog.open(hospital.audit_log, secret(hospital)) as audit_log:
        require(document, audit_log, hospital)
        assert decisions(audit_log, hospital)[digest(document)].signatures == ()
        with pytest.raises(NotApproved, match="2 more people"):
            require(document, audit_log, _asking(hospital, 2, auto_approve=False))
    with pytest.raises(ValueError, match="auto_approve asks nobody"):
        Policy(tasks=[document.task], auto_approve=True, approvers=2)


def _asking(hospital: SiteSettings, approvers: int, **policy: object) -> SiteSettings:
    changed = hospital.policy.model_copy(update={"approvers": approvers, **policy})
    return hospital.model_copy(update={"policy": changed})


def test_a_waiting_file_that_was_changed_is_named(document: StudyDocument, hospital: SiteSettings) -> None:
    keep(document, hospital)
    path = next((hospital.audit_log.parent / "pending").iterdir())
    path.write_text(path.read_text("utf-8").replace('"rounds":2', '"rounds":99'), "utf-8")
    with pytest.raises(SiteMisconfigured, match=path.name):
        waiting(hospital)


def test_a_digest_may_be_abbreviated_as_long_as_it_is_unique(tmp_path: Path) -> None:
    known = ["abcdef0123456789", "abcdef0199999999"]
    assert one_of("ABCDEF01234", known) == known[0]
    for digits, says in (("abcdef01", "2 studies"), ("abcdef0", "too short"), ("00000000", "no study here has")):
        with pytest.raises(SiteMisconfigured, match=says):
            one_of(digits, known)


class _Log:
    """An audit log as far as decisions are read from it."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def events(self) -> list[Event]:
        return self._events


PEOPLE = ("Ada Noor", "Ben Okafor", "Cleo Marchetti")
acts = st.tuples(st.sampled_from(PEOPLE), st.sampled_from([Kind.APPROVAL, Kind.REVOCATION]), st.integers(1, 3))


@given(st.lists(acts, min_size=1, max_size=8), st.integers(1, 3))
def test_it_is_approved_when_enough_people_have_since_the_last_revocation(
    done: list[tuple[str, Kind, int]], approvers: int
) -> None:
    """Against the rule as one would say it; each act is by a name, and an approval for the number of its time."""
    facts: dict[str, Fact] = {"study": "s", "digest": "d", "document": "{}", "automatic": False}
    at = datetime(2026, 11, 30, tzinfo=UTC)
    events = [Event(n, at, kind, {**facts, "by": by, "of": of}) for n, (by, kind, of) in enumerate(done)]
    settings = SimpleNamespace(policy=SimpleNamespace(approvers=approvers))
    found = decisions(_Log(events), settings)["d"]  # type: ignore[arg-type]
    since = max((n for n, (_, kind, _) in enumerate(done) if kind is Kind.REVOCATION), default=-1) + 1
    signed = {by for by, _, _ in done[since:]}
    needed = max(approvers, done[-1][2] if done[since:] else 1)
    assert found.approved == (len(signed) >= needed)
    assert found.revoked == (not signed)
    assert {each.by for each in found.signatures} == signed
