"""The examples in docstrings are run, so that what a newcomer copies from them works."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = (
    "conf.load",
    "tasks.task",
    "tasks.contract",
    "tasks.protocol.wire",
    "tasks.protocol.encoding",
    "tasks.metrics.ranking",
    "tasks.metrics.operating",
    "tasks.models.registry",
    "tasks.models.model_file",
    "client.ledger.ledger",
    "client.ledger.accounting",
    "client.ledger.audit_log",
    "client.link.flower_private",
    "server.strategy.strategy",
)


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_give_what_they_show(module: str) -> None:
    failed, tried = doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS)
    assert failed == 0
    assert tried > 0, "there is an example"
