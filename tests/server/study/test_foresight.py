"""Before anything is spent: the noise that hospitals will add, and a refusal with a remedy that helps."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.console import Console

from client.ledger.accounting import Mechanism, epsilon_of
from conf import load
from server.errors import UninformativeStudy
from server.study.document import document_of
from server.study.foresight import foresee_answers, foresee_study, noise_of, require_informative, table
from tasks import task as tasks
from tasks.protocol.study import RANGE_NOISE, StudyDocument
from tasks.tables import answer_terms

DEPLOYED = ("experiment=deployed", "runtime.address=h:1", "runtime.authority=/a", "runtime.certificate=/c")
EVERY_ROUND = ("evaluation.every=1", "evaluation.bins=16")


def proposed(*overrides: str, **sizes: int) -> StudyDocument:
    return document_of(load.load([*DEPLOYED, *overrides]), "study-1", sizes or {"alpha": 90, "beta": 96})


@pytest.mark.parametrize("overrides", [(), EVERY_ROUND, ("evaluation.every=3", "evaluation.subgroups=[sex,age]")])
def test_the_noise_is_what_the_accountant_of_a_hospital_asks_for(overrides: tuple[str, ...]) -> None:
    terms = proposed(*overrides).evaluation
    noise = noise_of(terms, 1e-4)
    assert terms.epsilon is not None
    spent = [Mechanism(noise, 1.0, terms.all_histograms()), Mechanism(RANGE_NOISE * noise, 1.0, 1)]
    assert epsilon_of(spent, 1e-4) == pytest.approx(terms.epsilon, rel=0.01)


def test_the_shipped_experiment_gives_an_auc_at_two_small_hospitals() -> None:
    document = proposed()
    require_informative(document)
    for each in foresee_study(document).values():
        assert 35 <= each.patients <= 45
        assert each.none < 0.4
        assert each.width < 0.5


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        (EVERY_ROUND, {"alpha": 90, "beta": 96}),
        (("evaluation.every=1", "evaluation.bins=64"), {"alpha": 60, "beta": 60}),
        (("evaluation.bins=64", "evaluation.subgroups=[sex,age,vendor]"), {"alpha": 60, "beta": 60}),
        (("evaluation.epsilon=1", "evaluation.every=2"), {"alpha": 90}),
    ],
)
def test_what_tells_nothing_is_refused_and_the_remedy_helps(overrides: tuple[str, ...], sizes: dict[str, int]) -> None:
    with pytest.raises(UninformativeStudy, match=r"alpha .*evaluation.uninformative=allow") as told:
        require_informative(proposed(*overrides, **sizes))
    remedy = re.search(r"give each a telling AUC: (.*)\. To run", str(told.value))
    assert remedy is not None, told.value
    helped = proposed(*overrides, *remedy[1].split(), **sizes)
    assert not any(each.tells_nothing for each in foresee_study(helped).values())


def test_with_far_too_few_patients_nothing_helps_and_that_is_said() -> None:
    with pytest.raises(UninformativeStudy, match="No setting of the evaluation helps"):
        require_informative(proposed("evaluation.epsilon=0.1", alpha=10))


def test_one_hospital_with_a_figure_is_enough() -> None:
    require_informative(proposed(*EVERY_ROUND, alpha=20, beta=900))


def test_exact_figures_always_tell_something() -> None:
    require_informative(document_of(load.load(["evaluation.epsilon=null"]), "demo-1", {"alder": 5}))


def test_the_table_has_a_line_for_each_hospital() -> None:
    console = Console(width=120, record=True)
    console.print(table(proposed(*EVERY_ROUND)))
    text = console.export_text()
    assert re.search(r"alpha .* 39 .*3\.0\d.*1\.00.*100%", text)
    assert "beta" in text
    assert "Assumed" in text


def test_two_models_are_compared_only_where_declared_sizes_let_it_pay() -> None:
    """Decided before anything is released; the others keep no share for it, so their noise is smaller."""
    asked = load.load(["experiment=demo", "evaluation.epsilon=4", "evaluation.bins=8", "evaluation.arms=[local]"])
    document = document_of(asked, "demo-1", {"small": 60, "large": 4000})
    assert document.evaluation.paired_at == ["large"]
    foreseen = foresee_study(document)
    assert foreseen["small"].noise < foreseen["large"].noise
    nobody = document_of(asked, "demo-1", {"small": 60, "smaller": 30})
    assert (nobody.evaluation.paired, nobody.evaluation.paired_at) == (0, [])
    exact = document_of(load.load(["experiment=demo"]), "demo-1", {"small": 60})
    assert (exact.evaluation.paired, exact.evaluation.paired_at) == (32, [])


def test_with_noise_there_is_one_evaluation_and_one_look() -> None:
    once = document_of(load.load(["evaluation.epsilon=4", "evaluation.bins=8"]), "demo-1", {"ash": 90}).evaluation
    assert (once.releases, once.edges) == (1, "released")
    exact = document_of(load.load(["evaluation.epsilon=null"]), "demo-1", {"ash": 90})
    assert (exact.evaluation.releases, exact.evaluation.edges) == (exact.rounds, "equal")


def test_questions_with_other_answers_have_a_column_each() -> None:
    answers = answer_terms(tasks.get("breast_ultrasound_three"), 8)
    plain = proposed()
    document = replace(plain, evaluation=replace(plain.evaluation, answers=answers))
    told = foresee_answers(document)
    assert told.keys() == {"question"}
    assert all(0 < each.width <= 1 for each in told["question"].values())
    heads = [str(column.header) for column in table(document).columns]
    assert "question: macro AUC, width" in heads
    assert not [head for head in map(str, (column.header for column in table(plain).columns)) if "macro" in head]
