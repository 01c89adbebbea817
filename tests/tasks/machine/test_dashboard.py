"""A page for this machine alone: who asks by another name, in another way or without the secret sees nothing."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tasks.machine import dashboard
from tasks.machine.dashboard import LocalPage, Markup, gauge, mark, page, table

HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def served() -> Iterator[LocalPage]:
    with LocalPage(
        "127.0.0.1:0", lambda: page("A page", [HOSTILE], [("One", table(("a",), [(HOSTILE,)], "none"))])
    ) as it:
        yield it


def ask(url: str, method: str = "GET", host: str | None = None) -> httpx.Response:
    with httpx.Client(trust_env=False) as client:
        return client.request(method, url, headers={} if host is None else {"Host": host})


def test_it_is_read_and_loads_nothing(served: LocalPage) -> None:
    answer = ask(served.url)
    assert answer.status_code == 200
    assert "<h1>A page</h1>" in answer.text
    assert "<script" not in answer.text
    assert "http-equiv=refresh" in answer.text, "it asks for itself anew without a script"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.findall(r"(?:src|href)=", answer.text)
    head = ask(served.url, "HEAD")
    assert (head.status_code, head.text) == (200, "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_can_only_be_read(served: LocalPage, method: str) -> None:
    answer = ask(served.url, method)
    assert (answer.status_code, answer.text, answer.headers["Allow"]) == (405, "", "GET, HEAD")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}", ""]
)
def test_whoever_comes_by_another_name_sees_nothing(served: LocalPage, host: str) -> None:
    """DNS rebinding: a page elsewhere whose name has become this machine's address."""
    port = served.url.split(":")[2].split("/")[0]
    answer = ask(served.url, host=host.format(port=port))
    assert (answer.status_code, answer.text) == (421, "")
    assert ask(served.url, host=f"LOCALHOST:{port}").status_code == 200, "as somebody may type it"


def test_whoever_does_not_know_the_secret_sees_nothing(served: LocalPage) -> None:
    base, secret = served.url[:-1].rsplit("/", 1)
    for path in ("", "favicon.ico", "wrong/", secret, f"{secret}/more", "..%2f", "\u00e9"):
        answer = ask(f"{base}/{path}")
        assert (answer.status_code, answer.text) == (404, ""), path
    with LocalPage("127.0.0.1:0", lambda: "") as other:
        assert secret not in other.url


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:0", "192.0.2.1:9480", "example.org:9480", "[::]:0", "127.0.0.1", "127.0.0.1:x", "localhost:99999"],
)
def test_it_is_for_this_machine_only(address: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(address)}: it must be an address of this machine only"):
        LocalPage(address, str)


def test_a_port_that_is_taken_is_told_with_what_to_do(served: LocalPage) -> None:
    address = served.url.split("/")[2]
    with pytest.raises(ValueError, match=f"^{address}: another program listens there already; name another port$"):
        LocalPage(address, str)


def test_many_who_ask_at_once_look_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def slow() -> str:
        looked.append(1)
        time.sleep(0.2)
        return "page"

    with LocalPage("127.0.0.1:0", slow) as it:
        threads = [threading.Thread(target=ask, args=(it.url,)) for _ in range(5)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert len(looked) == 1
        monkeypatch.setattr(dashboard, "_FRESH_S", 0.0)
        assert ask(it.url).text == "page"
        assert len(looked) == 2


def test_text_of_others_is_text_and_a_gauge_says_in_words_what_it_draws() -> None:
    assert "<script" not in table((HOSTILE,), [(HOSTILE,)], "none")
    assert "none" in table(("a",), [], "none")
    assert "<script" not in mark("ok", HOSTILE)
    assert table(("a",), [(Markup("<b>x</b>"),)], "").count("<b>x</b>") == 1
    drawn = gauge("Patients:", [("spent", HOSTILE, 30.0), ("next", "next", 10.0)], 20.0, "none left")
    assert "<script" not in drawn
    assert 'aria-label="Patients: none left"' in drawn
    widths = [float(width) for width in re.findall(r'class=\w+ x="[\d.]+" y=0 width="([\d.]+)"', drawn)]
    assert widths == [75.0, 25.0], "more than there is fills the bar, and the cap stands inside"
    assert 'x1="50.00"' in drawn
