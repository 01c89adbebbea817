"""A survey, from the order to the answer: approved, paid for, counted, noised, once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from client.cohort import index
from client.cohort.survey import SurveyedPatients
from client.ledger.links import Head
from client.report import Spent, nobody_in_survey, survey_report
from client.training.noise import entropy
from tasks.protocol import wire
from tasks.protocol.survey import SurveyDocument
from tasks.protocol.wire import ErrorCode, Refusal, SurveyOrder, SurveyReport
from tests.client.hospital import PATIENTS, TASK, Archive, Hospital, draw_archive
from tests.client.surveying import ALLOWED, survey

DOCUMENT = survey("label", "label*sex", "spacing", "intensity")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("survey"))


@pytest.fixture
def hospital(archive: Archive, tmp_path: Path) -> Hospital:
    return Hospital.provision(tmp_path, archive, policy=ALLOWED)


def ask(hospital: Hospital, document: SurveyDocument = DOCUMENT, head: str | None = None) -> SurveyReport | Refusal:
    content = hospital.send(wire.encode(SurveyOrder(document, ledger_head=head)), "query.survey")
    return wire.decode(content, SurveyReport, Refusal)


def refused(answer: SurveyReport | Refusal) -> ErrorCode:
    assert isinstance(answer, Refusal)
    return answer.code


def answered(answer: SurveyReport | Refusal) -> SurveyReport:
    assert isinstance(answer, SurveyReport), answer
    return answer


def test_a_survey_is_answered_once_it_is_approved(hospital: Hospital) -> None:
    assert refused(ask(hospital)) is ErrorCode.NOT_APPROVED
    assert hospital.entries() == [], "nothing was charged"
    hospital.approve(DOCUMENT)
    report = answered(ask(hospital))
    assert {name: table.shape for name, table in report.arrays.items()} == DOCUMENT.shapes()
    assert all(table.dtype == np.float64 for table in report.arrays.values())
    assert 0.99 <= (report.epsilon or 0) <= 1.0
    for name, table in report.arrays.items():
        deviation = report.noise * math.sqrt(table.size)
        assert abs(table.sum() - PATIENTS) < 6 * deviation, name
        assert not np.array_equal(table, np.round(table)), "no exact count leaves"
    entries = hospital.entries()
    assert [(e.use.cohort, e.use.study, e.committed is not None) for e in entries] == [
        ("train", "ask-1", True), ("validation", "ask-1", True),
    ]  # fmt: skip
    assert {e.mechanism.noise_multiplier for e in entries} == {report.noise}


def test_the_same_survey_again_gets_the_stored_answer_and_costs_nothing(hospital: Hospital) -> None:
    hospital.approve(DOCUMENT)
    first = answered(ask(hospital))
    again = answered(ask(hospital, head=first.ledger_head))
    assert all(np.array_equal(first.arrays[name], table) for name, table in again.arrays.items())
    assert len(hospital.entries()) == 2
    receipts = [receipt for receipt in hospital.receipts() if receipt.message == "SurveyReport"]
    assert [(receipt.cohort, receipt.repeated) for receipt in receipts] == [
        ("train+validation", False), ("train+validation", True),
    ]  # fmt: skip


def test_nobody_is_counted_before_it_is_paid_for(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital.approve(DOCUMENT)
    seen: list[int] = []
    count = SurveyedPatients.tables

    def counted(self: SurveyedPatients, document: SurveyDocument) -> wire.Arrays:
        seen.append(len([e for e in hospital.entries() if e.committed is None]))
        return count(self, document)

    monkeypatch.setattr(SurveyedPatients, "tables", counted)
    answered(ask(hospital))
    assert seen == [2], "both cohorts' reservations are on the disk"


def test_a_crash_while_counting_spends_the_reservation(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital.approve(DOCUMENT)

    def die(self: SurveyedPatients, document: SurveyDocument) -> wire.Arrays:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SurveyedPatients, "tables", die)
        with pytest.raises(KeyboardInterrupt):
            ask(hospital)
    assert hospital.spent("train") >= 0.99
    assert refused(ask(hospital)) is ErrorCode.BUDGET_EXHAUSTED, "it was for one answer"


def test_a_failure_on_the_patients_leaves_as_noise_alone(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital.approve(DOCUMENT)

    def fail(self: SurveyedPatients, document: SurveyDocument) -> wire.Arrays:
        raise ValueError("a patient of whom something is wrong")

    monkeypatch.setattr(SurveyedPatients, "tables", fail)
    report = answered(ask(hospital))
    assert {name: table.shape for name, table in report.arrays.items()} == DOCUMENT.shapes()
    assert all(abs(table.sum()) < 6 * report.noise * math.sqrt(table.size) for table in report.arrays.values())
    assert "a patient of whom something is wrong" in hospital.log(), "staff can read why"
    assert hospital.spent("train") >= 0.99


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"surveys": ["label", "sex", "spacing"]}, ErrorCode.NOT_PERMITTED),
        ({"surveys": []}, ErrorCode.NOT_PERMITTED),
        ({"max_bins": 4}, ErrorCode.NOT_PERMITTED),
        ({"max_upload_bytes": 100}, ErrorCode.NOT_PERMITTED),
        ({"tasks": ["lung_ct"]}, ErrorCode.NOT_PERMITTED),
    ],
)
def test_the_policy_wins_over_an_approval(policy: dict[str, Any], code: ErrorCode, hospital: Hospital) -> None:
    hospital.approve(DOCUMENT)
    hospital.change(policy=policy)
    assert refused(ask(hospital)) is code
    assert hospital.entries() == []


def test_a_survey_for_another_release_is_not_answered(hospital: Hospital) -> None:
    other = replace(DOCUMENT, release="0.0.1")
    hospital.approve(other)
    assert refused(ask(hospital, other)) is ErrorCode.OTHER_RELEASE


def test_an_epsilon_above_the_cap_becomes_the_cap(archive: Archive, tmp_path: Path) -> None:
    hospital = Hospital.provision(tmp_path, archive, policy=ALLOWED | {"max_epsilon_study": 0.5})
    hospital.approve(DOCUMENT)
    report = answered(ask(hospital))
    assert 0.49 <= (report.epsilon or 0) <= 0.5


def test_surveys_stop_when_the_lifetime_budget_is_spent(archive: Archive, tmp_path: Path) -> None:
    """However many are asked, under whatever names."""
    caps = {"max_epsilon_study": 1.0, "max_epsilon_life": 1.5}
    hospital = Hospital.provision(tmp_path, archive, policy=ALLOWED | caps)
    codes = []
    for number in range(4):
        document = replace(DOCUMENT, name=f"ask-{number}")
        hospital.approve(document)
        answer = ask(hospital, document)
        codes.append(answer.code if isinstance(answer, Refusal) else None)
    assert codes[0] is None
    assert codes[-1] is ErrorCode.BUDGET_EXHAUSTED
    assert hospital.spent("train") <= 1.5 + 1e-6
    assert hospital.spent("validation") <= 1.5 + 1e-6


def test_a_stopped_hospital_and_a_revoked_survey_answer_nothing(hospital: Hospital) -> None:
    hospital.approve(DOCUMENT)
    hospital.settings.stop_file.touch()
    assert refused(ask(hospital)) is ErrorCode.STOPPED
    assert hospital.entries() == []


def test_nothing_that_identifies_anybody_leaves(hospital: Hospital) -> None:
    hospital.approve(DOCUMENT)
    content = hospital.send(wire.encode(SurveyOrder(DOCUMENT)), "query.survey")
    head = json.loads(str(content.config_records["head"]["json"]))
    assert head.keys() == {"study", "round", "epsilon", "delta", "noise", "ledger_head"}
    told = json.dumps(head) + str(content.config_records["head"])
    with index.opened(hospital.settings) as catalog:
        for image in catalog.images(TASK, ["st-anne"]):
            assert image.patient not in told
            assert image.image not in told
    assert str(hospital.settings.catalog) not in told


# --- noise --------------------------------------------------------------------------------------------------------


def added(
    noise: float, document: SurveyDocument, report: Callable[..., SurveyReport] = survey_report
) -> NDArray[np.float64]:
    """What is added to exact tables, over many reports."""
    order = SurveyOrder(document)
    tables = {name: np.full(table.shape, 7.0) for name, table in nobody_in_survey(order).items()}
    found = []
    for _ in range(400):
        sent = report(order, tables, Spent(1.0, 1e-4, noise), Head(1, "ab" * 32), entropy())
        found += [(sent.arrays[name] - table).ravel() for name, table in tables.items()]
    return np.concatenate(found)


def is_gaussian(values: NDArray[np.float64], noise: float) -> bool:
    """By mean, spread and tails; each fails a right sample less than once in a million."""
    n, z = values.size, values / noise
    spread = abs(z.std() - 1) < 5 / math.sqrt(2 * n)
    tails = [(np.abs(z) < bound).mean() - math.erf(bound / math.sqrt(2)) for bound in (0.5, 1.0, 1.96, 3.0)]
    return abs(z.mean()) < 5 / math.sqrt(n) and spread and all(abs(each) < 5 * 0.5 / math.sqrt(n) for each in tails)


def test_every_cell_gets_gaussian_noise_of_the_spread_that_is_charged() -> None:
    assert is_gaussian(added(3.2, DOCUMENT), 3.2)


def test_no_noise_and_half_the_noise_would_be_seen() -> None:
    def half(order: SurveyOrder, tables: wire.Arrays, spent: Spent, *rest: Any) -> SurveyReport:
        return survey_report(order, tables, replace(spent, noise_multiplier=spent.noise_multiplier / 2), *rest)

    def none(order: SurveyOrder, tables: wire.Arrays, spent: Spent, *rest: Any) -> SurveyReport:
        return replace(survey_report(order, tables, spent, *rest), arrays=tables)

    assert not is_gaussian(added(3.2, DOCUMENT, half), 3.2)
    assert not is_gaussian(added(3.2, DOCUMENT, none), 3.2)


def test_noise_of_two_reports_is_not_the_same() -> None:
    values = added(3.2, survey("label"))
    assert len(np.unique(values)) == len(values)


def test_exact_tables_and_tables_of_another_form_never_leave() -> None:
    order, head = SurveyOrder(DOCUMENT), Head(1, "ab" * 32)
    tables = nobody_in_survey(order)
    with pytest.raises(ValueError, match="without noise"):
        survey_report(order, tables, Spent(math.inf, 1e-4, 0.0), head, entropy())
    with pytest.raises(ValueError, match="shapes"):
        survey_report(order, {"label": tables["label"]}, Spent(1.0, 1e-4, 2.0), head, entropy())
