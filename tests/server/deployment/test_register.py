"""One register: the SuperLink's list and what hospitals are told follow it, whatever was lost or down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from server.deployment import register
from server.deployment.server_dir import UNKNOWN, ServerDir, ServerSettings, make
from server.errors import NotAdmitted, ServerUnreachable
from server.runtime.flower_private import Control, ControlRefused
from tasks.protocol import enrolment
from tests.server.deployment.superlink import SuperLink


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    return make(tmp_path / "home", ServerSettings(host="localhost"))


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink()


def asking(name: str = "alder", size: int = 200, key: bytes | None = None) -> enrolment.Request:
    return enrolment.request(name, key or enrolment.new_key(), size)


def admitted(home: ServerDir, superlink: SuperLink, request: enrolment.Request) -> list[str]:
    return register.admit(home, cast(Control, superlink), request)


def revoked(home: ServerDir, superlink: SuperLink, name: str) -> str:
    return register.revoke(home, cast(Control, superlink), name)


def reconciled(home: ServerDir, superlink: SuperLink) -> list[str]:
    return register.reconcile(home, cast(Control, superlink))


def told(home: ServerDir, request: enrolment.Request) -> Any:
    """What the hospital with this key is told at the fence."""
    path = home.admission / f"{enrolment.key_fingerprint(request).replace(' ', '')}.json"
    return json.loads((path if path.exists() else home.admission / UNKNOWN).read_text())["state"]


def test_admitting_twice_changes_nothing_and_says_so(home: ServerDir, superlink: SuperLink) -> None:
    request = asking()
    assert admitted(home, superlink, request) == ["alder is admitted."]
    before = (home.path / "hospitals.json").read_bytes()
    assert "nothing has changed" in " ".join(admitted(home, superlink, request))
    assert (home.path / "hospitals.json").read_bytes() == before
    assert superlink.may_join(request.public_key.encode())
    assert home.hospitals()["alder"].public_size == 200
    assert told(home, request) == "admitted"
    assert told(home, asking()) == "unknown"


def test_another_size_is_told(home: ServerDir, superlink: SuperLink) -> None:
    key = enrolment.new_key()
    admitted(home, superlink, asking(key=key))
    assert admitted(home, superlink, asking(size=300, key=key)) == [
        "alder's public size is 300 from now on; it was 200."
    ]
    superlink.away = True
    done = admitted(home, superlink, asking(size=400, key=key))
    assert "it was 300" in done[0]
    assert "is told when the server runs" in done[1]


def test_a_database_that_was_lost_is_filled_again(home: ServerDir, superlink: SuperLink) -> None:
    requests = [asking(name) for name in ("alder", "birch", "cedar")]
    for request in requests:
        admitted(home, superlink, request)
    revoked(home, superlink, "cedar")
    superlink.lose()
    assert "registered with the SuperLink again" in " ".join(admitted(home, superlink, requests[0])), "admit mends it"
    assert reconciled(home, superlink) == ["birch was registered with the SuperLink again, which had lost it."]
    assert [superlink.may_join(one.public_key.encode()) for one in requests] == [True, True, False]
    nodes = {one.key: one.number for one in superlink.known_keys()}
    assert {one.node for one in home.hospitals().values()} == set(nodes.values())
    assert reconciled(home, superlink) == [], "once"


def test_the_register_that_was_lost_is_filled_by_admitting_again(home: ServerDir, superlink: SuperLink) -> None:
    request = asking()
    admitted(home, superlink, request)
    node = home.hospitals()["alder"].node
    (home.path / "hospitals.json").unlink()
    assert f"{enrolment.key_fingerprint(request)}, which is not in hospitals.json" in " ".join(
        reconciled(home, superlink)
    )
    assert superlink.may_join(request.public_key.encode()), "a key that is removed could never come back"
    assert admitted(home, superlink, request) == ["alder is admitted."]
    assert home.hospitals()["alder"].node == node


def test_a_register_of_an_older_release_learns_the_keys(home: ServerDir, superlink: SuperLink) -> None:
    request = asking()
    admitted(home, superlink, request)
    home.register({"alder": replace(home.hospitals()["alder"], public_key=None)})
    assert reconciled(home, superlink) == []
    assert home.hospitals()["alder"].public_key == request.public_key
    home.register({"alder": replace(home.hospitals()["alder"], public_key=None)})
    superlink.lose()
    assert "admit its request again" in " ".join(reconciled(home, superlink))
    assert "again" in " ".join(admitted(home, superlink, request))


def test_who_is_revoked_while_the_server_is_down_is_removed_when_it_runs(home: ServerDir, superlink: SuperLink) -> None:
    request = asking()
    admitted(home, superlink, request)
    superlink.away = True
    assert "is told when the server runs" in revoked(home, superlink, "alder")
    assert home.hospitals() == {}
    assert told(home, request) == "revoked"
    superlink.away = False
    assert superlink.may_join(request.public_key.encode())
    assert "now removed" in " ".join(reconciled(home, superlink))
    assert not superlink.may_join(request.public_key.encode())
    assert reconciled(home, superlink) == []


@pytest.mark.parametrize("lost", [False, True])
def test_a_key_that_was_revoked_never_comes_back(home: ServerDir, superlink: SuperLink, lost: bool) -> None:
    request = asking()
    admitted(home, superlink, request)
    revoked(home, superlink, "alder")
    if lost:
        superlink.lose()
    for again in (request, enrolment.request("birch", enrolment.new_key(), 5)):
        if again is request:
            with pytest.raises(NotAdmitted, match="accepts none twice"):
                admitted(home, superlink, again)
        else:
            admitted(home, superlink, again)
    with pytest.raises(NotAdmitted, match="no hospital 'alder'"):
        revoked(home, superlink, "alder")
    anew = asking()
    assert admitted(home, superlink, anew) == ["alder is admitted."]
    assert [one.name for one in home.ever_admitted()] == ["alder", "birch", "alder"]
    assert (told(home, request), told(home, anew)) == ("revoked", "admitted")


def test_a_name_has_one_key_and_a_key_one_name(home: ServerDir, superlink: SuperLink) -> None:
    key = enrolment.new_key()
    admitted(home, superlink, asking(key=key))
    with pytest.raises(NotAdmitted, match="another key; run consilium-server revoke alder"):
        admitted(home, superlink, asking())
    with pytest.raises(NotAdmitted, match="admitted as alder, not as birch"):
        admitted(home, superlink, asking("birch", key=key))


def test_a_new_hospital_needs_a_server_that_runs(home: ServerDir, superlink: SuperLink) -> None:
    superlink.away = True
    with pytest.raises(ServerUnreachable, match="Is the server running"):
        admitted(home, superlink, asking())
    assert home.ever_admitted() == []
    with pytest.raises(ControlRefused):
        reconciled(home, superlink)


def test_what_a_key_that_is_none_does_to_the_others_is_nothing(home: ServerDir, superlink: SuperLink) -> None:
    superlink.register(b"not a key")
    assert admitted(home, superlink, asking()) == ["alder is admitted."]
    assert reconciled(home, superlink) == []
