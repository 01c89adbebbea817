"""A federation that waits for a study: what it takes, what it writes, and what Prometheus sees of it."""

from __future__ import annotations

import time

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.deployment.federation import Federation, until

MOST_MEMORY = 700e6
POLLS = ("pull-messages", "send-node-heartbeat", "GET /health ")


def figures(address: str) -> dict[str, dict[tuple[str, ...], float]]:
    """What is served there, by metric and labels."""
    text = httpx.get(f"http://{address}/metrics", trust_env=False, timeout=30).text
    return {
        one.name: {tuple(sample.labels.values()): sample.value for sample in one.samples}
        for one in text_string_to_metric_families(text)
    }


def seen(address: str) -> dict[str, dict[tuple[str, ...], float]]:
    try:
        return figures(address)
    except httpx.HTTPError:
        return {}


def test_prometheus_sees_both_sides(small: Federation) -> None:
    names = [(hospital.name,) for hospital in small.hospitals]
    heard = "consilium_server_hospital_online"
    until(lambda: seen(small.metrics).get(heard) == dict.fromkeys(names, 1.0), 180, "Prometheus sees the hospitals")
    server = figures(small.metrics)
    assert set(server["consilium_server_program_well"]) == {("superlink",), ("mlflow",), ("studies",), ("nginx",)}
    assert server["consilium_server_queue_places"] == {(): 5.0}
    for hospital in small.hospitals:
        well = {("gateway",): 1.0, ("trainer",): 1.0}
        name = "consilium_site_program_well"
        until(lambda at=hospital.metrics, well=well, name=name: seen(at).get(name) == well, 120, "both are well")
        site = figures(hospital.metrics)
        assert site["consilium_site_server_certificate_days"][()] > 300
        assert site["consilium_site_studies_waiting"] == {(): 0.0}


def test_an_idle_server_is_small(small: Federation) -> None:
    assert small.server is not None
    supervisor = psutil.Process(small.server.pid)
    found = {" ".join(one.cmdline())[:80]: one.memory_full_info().pss for one in
             [supervisor, *supervisor.children(recursive=True)]}  # fmt: skip
    assert sum(found.values()) < MOST_MEMORY, found


def test_who_waits_writes_nothing(small: Federation) -> None:
    log = small.home / "logs" / "fence-access.log"
    before = log.stat().st_size
    time.sleep(10)
    with log.open() as file:
        file.seek(before)
        lines = file.readlines()
    assert [line for line in lines for poll in POLLS if poll in line and '" 200 ' in line] == []
    assert log.stat().st_mode & 0o077 == 0
