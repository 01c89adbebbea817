"""Every word by which images are left out has an answer to "what now?", and every answer a word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from client.cohort.remedies import WORDS, remedy_of
from client.pixels.modality import Hounsfield
from client.pixels.refusal import Reason
from client.reading.stack import Unstackable
from client.sources.pacs.fidelity import Fidelity
from client.sources.pacs.spool import MissingReason
from tasks import contract as contracts
from tasks import task as tasks

ROOT = Path(__file__).parents[3]
READERS = (
    *("client/sources", "client/reading", "client/cohort", "client/prediction"),
    *("tasks/imaging", "tasks/lung_ct", "tasks/brain_mr", "tasks/medmnist"),
)
OPENSSL = {"HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "WRONG_VERSION_NUMBER"}
OTHERS = {*Fidelity, *Hounsfield, *OPENSSL, "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OTHER_SERIES"}
"""Words for something else."""
WORD = re.compile(r"[A-Z]+(_[A-Z]+)+")
BRAIN = tasks.get("brain_mr")


def _words() -> Iterator[str]:
    """All that looks like one in the source of those who read."""
    files = chain.from_iterable((ROOT / folder).rglob("*.py") for folder in READERS)
    for path in (file for file in files if file.name != "remedies.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
                yield node.value


def _all() -> set[str]:
    of_series = {f"SERIES_{word}" for word in Unstackable}
    return ({*_words()} - OTHERS) | {*map(str, (*Reason, *Unstackable, *MissingReason)), *of_series, "WITHDRAWN"}


def test_every_word_of_the_readers_has_a_remedy() -> None:
    assert len(_all()) > 60
    assert sorted(word for word in _all() if not remedy_of(BRAIN, word)) == []


def test_no_remedy_is_for_a_word_that_nobody_says() -> None:
    assert sorted(WORDS.keys() - _all()) == []


@pytest.mark.parametrize("prefix", ["", "RULE:"])
def test_rules_of_the_contract_bring_their_own(prefix: str) -> None:
    for rule in contracts.of_task(BRAIN.name).rules:
        assert remedy_of(BRAIN, prefix + rule.id) == rule.remedy


def test_a_missing_sequence_and_an_unknown_word() -> None:
    assert "SeriesDescription" in remedy_of(BRAIN, "NO_SERIES_OF_T1CE")
    assert remedy_of(BRAIN, "SOMETHING_ELSE") == ""
