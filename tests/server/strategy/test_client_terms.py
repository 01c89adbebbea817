"""What a strategy asks of hospitals, as the document that they approve says it."""

from __future__ import annotations

import pytest

from conf import load
from server.strategy.client_terms import method_of
from server.study.document import document_of
from tasks.protocol.study import MethodTerms

METHODS = {
    "fedprox": MethodTerms(proximal=0.01),
    "scaffold": MethodTerms(control_variates=True),
    "fedbn": MethodTerms(stays="normalisation"),
    "fedper": MethodTerms(stays="head"),
    "fedrep": MethodTerms(stays="head", head_steps=5),
    "ditto": MethodTerms(personal=0.1),
    "mr_mtl": MethodTerms(towards_mean=0.01),
}
NAMES = sorted(path.stem for path in (load.FOLDER / "strategy").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_the_document_says_what_the_strategy_asks_for(name: str) -> None:
    study = load.load([f"strategy={name}"])
    assert document_of(study, "s-1", {}).method == method_of(study.strategy) == METHODS.get(name, MethodTerms())
