"""The Grafana dashboards: every metric in a query exists, and every metric is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SIDES = {"server": "server/deployment/observed.py", "client": "client/link/observed.py"}
SHARED = "tasks/machine/observation.py"
_METRIC = re.compile(r"\bconsilium_(?:server|site)_\w+")


def dashboard(side: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / side / "container" / "grafana.json").read_text("utf-8"))
    return found


def queries(side: str) -> Iterator[tuple[str, str]]:
    """Each query with its legend."""
    for panel in dashboard(side)["panels"]:
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]
    for variable in dashboard(side)["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"], ""


def existing(side: str) -> set[str]:
    """All metrics of a side, as its source names them. Its own tests show that these are what is served."""
    source = (ROOT / SIDES[side]).read_text("utf-8")
    prefix = re.search(r'^PREFIX = "(\w+)"$', source, re.MULTILINE)
    assert prefix
    found = re.findall(r"\{PREFIX\}_(\w+)", source)
    found += re.findall(r"\{prefix\}_(\w+)", (ROOT / SHARED).read_text("utf-8"))
    return {f"{prefix[1]}_{name}" for name in found}


def unknown(expressions: list[str], metrics: set[str]) -> set[str]:
    return {name for one in expressions for name in _METRIC.findall(one)} - metrics


@pytest.mark.parametrize("side", SIDES)
def test_every_query_names_metrics_that_exist(side: str) -> None:
    expressions = [expression for expression, _ in queries(side)]
    assert all(_METRIC.search(expression) for expression in expressions)
    assert unknown(expressions, existing(side)) == set()


@pytest.mark.parametrize("side", SIDES)
def test_every_metric_is_shown(side: str) -> None:
    shown = {name for expression, _ in queries(side) for name in _METRIC.findall(expression)}
    assert existing(side) - shown == set()


@pytest.mark.parametrize("side", SIDES)
def test_a_dashboard_can_be_imported(side: str) -> None:
    made = dashboard(side)
    numbers = [panel["id"] for panel in made["panels"]]
    assert len(set(numbers)) == len(numbers) > 10
    assert {panel["datasource"]["uid"] for panel in made["panels"]} == {"${datasource}"}
    for panel in made["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        assert panel["description"]
    for expression, _ in queries(side):
        assert all(expression.count(left) == expression.count(right) for left, right in ("()", "{}", "[]"))


def test_a_metric_that_is_gone_would_be_seen() -> None:
    assert unknown(["rate(consilium_server_gone_total[5m])"], existing("server")) == {"consilium_server_gone_total"}
    assert len(existing("server")) > 20
    assert len(existing("client")) > 20
