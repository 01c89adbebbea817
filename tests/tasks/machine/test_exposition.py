"""Prometheus can read the figures, whatever text is in a label; nobody else's port is taken."""

from __future__ import annotations

import socket
import threading
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter, ValidationError

from tasks.machine.exposition import Address, Exposition, Figure, is_local, shortened, split

HOSTILE = 'a"} 1\nevil_metric{x="\\'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_figures_are_served_as_they_are_now() -> None:
    figures = [
        Figure("c_rounds", "Rounds", 1.0, {"study": "a"}),
        Figure("c_bytes_total", "Bytes", 7.0),
        Figure("c_rounds", "Rounds", 2.0, {"study": HOSTILE}),
    ]
    port = free_port()
    served = Exposition(f"127.0.0.1:{port}", lambda: figures)
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        assert set(families) == {"c_rounds", "c_bytes"}
        assert [(one.labels["study"], one.value) for one in families["c_rounds"].samples] == [
            ("a", 1.0),
            ('a"} 1evil_metric{x="\\', 2.0),
        ]
        assert (families["c_bytes"].type, families["c_rounds"].type) == ("counter", "gauge")
        figures[:] = [Figure("c_other", "Other", 3.0)]
        assert "c_other 3.0" in httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        with pytest.raises(OSError, match="in use"):
            Exposition(f"127.0.0.1:{port}", list)
    finally:
        served.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)


def test_who_connects_and_is_silent_takes_few_threads_and_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.machine.small_server._Quick.timeout", 1)
    port, before = free_port(), threading.active_count()
    served = Exposition(f"127.0.0.1:{port}", lambda: [Figure("c_other", "Other", 3.0)])
    try:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        time.sleep(0.3)
        assert threading.active_count() <= before + 1 + 8
        ends = time.monotonic() + 60
        while True:
            try:
                assert "c_other" in httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
                break
            except httpx.HTTPError:
                assert time.monotonic() < ends
                time.sleep(0.2)
        for one in silent:
            one.close()
    finally:
        served.close()


def test_addresses() -> None:
    assert split("[::1]:9464") == ("::1", 9464)
    assert [is_local(one) for one in ("127.0.0.1:1", "[::1]:1", "localhost:1", "0.0.0.0:1", "10.0.0.5:1")] == [
        *(True, True, True),
        *(False, False),
    ]
    assert shortened("x" * 200) == "x" * 80


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:70000", "127.0.0.1:0", "[::1:1", "a b:1", "http://a:1", ":1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    good = TypeAdapter(Address)
    assert [good.validate_python(one) for one in ("127.0.0.1:1", "[::1]:65535", "host-1.a:9464")]
    with pytest.raises(ValidationError):
        good.validate_python(text)
