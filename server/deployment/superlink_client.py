"""The researcher's side of a deployed study: submit it to the server, follow it, fetch its results.

From then on the study runs on the server. Leaving does not end it, and the same command follows it again: a second run
of a study that is already running ends at once, and both belong to one study.

Tested in ``tests/server/test_play_study.py``.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509

from conf import load as conf
from conf.schema.model import Deep, Encoder, ScatterOutline
from conf.schema.runtime import SuperlinkRuntime
from conf.schema.study import Study
from conf.schema.tracking import Tracking
from server.deployment import people, signing, stopping, study_logs
from server.deployment.queue import SHOWN
from server.errors import NotAllowed, ServerUnreachable, StudyError, StudyStopped
from server.rounds.checkpoint import records
from server.rounds.state import RoundRecord
from server.runtime.flower_private import Control, ControlRefused
from server.study.document import model_of
from server.study.folder import FINISHED, STOPPED
from tasks import faults
from tasks.machine.disk import write_whole

_POLL_S = 1.0
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}"
_WAIT_S = 300.0
"""For how long the server may be unreachable while a study is followed."""
_MOST_BYTES, _LARGEST_MODEL = 2**28, 2**33

OnRounds = Callable[[list[RoundRecord]], None]
Tell = Callable[[str], None]


class ServerConnection:
    """The server's endpoint for researchers.

    Raises:
        ConfigError: the certificates cannot be used.
    """

    def __init__(self, runtime: SuperlinkRuntime) -> None:
        self._address = runtime.address
        self._client = httpx.Client(verify=_context(runtime), timeout=30)

    def get(self, path: str, most: int = _MOST_BYTES, offset: int = 0) -> bytes | None:
        """A file on the server, from an offset on, or ``None`` if it does not exist yet or ends before.

        Raises:
            ServerUnreachable
        """
        part = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with self._client.stream("GET", f"https://{self._address}/{path}", headers=part) as response:
                if response.status_code in (404, 416):
                    return None
                if offset and response.status_code != 206:
                    raise ServerUnreachable(f"{self._address} does not send a part of {path}")
                if response.is_success:
                    return _first(response, most)
        except httpx.HTTPError as error:
            raise ServerUnreachable(f"{self._address} cannot be reached: {error}") from error
        known = {
            400: "it requires a valid certificate of consilium-server person",
            403: "the role in your certificate does not allow it",
        }
        why = known.get(response.status_code, f"HTTP {response.status_code}")
        raise ServerUnreachable(f"{self._address} refuses {path}: {why}")

    def facts(self, path: str) -> dict[str, Any]:
        """A JSON file on the server; empty if it does not exist yet."""
        facts: dict[str, Any] = json.loads(self.get(path) or b"{}")
        return facts


def _context(runtime: SuperlinkRuntime) -> ssl.SSLContext:
    """By what the two sides know each other.

    Raises:
        ConfigError: the files are not there, or are no certificates.
    """
    problems = []
    for name, value in (("authority", runtime.authority), ("certificate", runtime.certificate)):
        try:
            Path(value).expanduser().read_bytes()
        except OSError as error:
            error.filename = None
            problems.append(f"runtime.{name}={value}: {faults.of_system(error)}")
    if problems:
        raise conf.ConfigError(*problems)
    try:
        context = ssl.create_default_context(cafile=str(Path(runtime.authority).expanduser()))
        context.load_cert_chain(str(Path(runtime.certificate).expanduser()))
    except OSError as error:  # ssl's own errors as well
        raise conf.ConfigError(
            f"runtime.authority={runtime.authority}, runtime.certificate={runtime.certificate}: they are not the two "
            f"files that the coordinator has made for you ({error.strerror or error}); name those"
        ) from error
    return context


def _first(response: httpx.Response, most: int) -> bytes:
    """At most so many bytes of a body, whatever its length is said to be."""
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) >= most:
            break
    return bytes(content[:most])


def submit(study: Study, runtime: SuperlinkRuntime) -> int:
    """Submit the study, signed. Returns the number of its run.

    Raises:
        ConfigError: the certificates cannot be used.
        ServerUnreachable: with the reason.
    """
    return _asked(runtime, conf.to_plain(_as_text(study, runtime)))


def _asked(runtime: SuperlinkRuntime, what: Mapping[str, object]) -> int:
    _context(runtime)
    certificate = Path(runtime.certificate).expanduser()
    try:
        _refuse_readers(certificate)
        text = signing.signed(what, certificate, certificate)
        return Control(runtime.address, Path(runtime.authority).expanduser(), certificate).start(text)
    except (ControlRefused, OSError, ValueError) as error:
        raise ServerUnreachable(f"{runtime.address} did not accept it: {error}") from error


def _refuse_readers(certificate: Path) -> None:
    """The server would refuse it as well, in fewer words.

    Raises:
        NotAllowed
        OSError, ValueError: the file holds no certificate.
    """
    who = people.person_in(x509.load_pem_x509_certificate(certificate.read_bytes()))
    if who is not None and who.role not in people.ASKING:
        raise NotAllowed(f"{who.name} is a {who.role}, who may read results but not submit or stop studies")


def stop(runtime: SuperlinkRuntime, server: ServerConnection, study: str) -> dict[str, Any]:
    """Stop a study for good, or a run that waits in the queue. Returns ``study.json``; for a run, nothing.

    Raises:
        StudyError: it is not yours, or finished, or there is none of that name.
        ServerUnreachable: with the reason.
    """
    run, ends, name = _asked(runtime, stopping.text(study)), time.monotonic() + _WAIT_S, ""
    while time.monotonic() < ends:
        told = server.facts(f"runs/{run}.json") if not name else {}
        if "error" in told:
            raise StudyError(str(told["error"]))
        name = name or str(told.get("stopped", ""))
        if name.startswith("run "):
            return {}
        facts = server.facts(f"studies/{name}/study.json") if name else {}
        if facts.get("state") == FINISHED:
            raise StudyError(f"{name} finished before it could be stopped")
        if facts.get("state") == STOPPED:
            return facts
        time.sleep(_POLL_S / 2)
    raise ServerUnreachable(f"{runtime.address} has not answered within {_WAIT_S:g} s; is it running?")


class LogsThere:
    """A study's logs on the server, for ``study_logs.lines``."""

    def __init__(self, server: ServerConnection, study: str) -> None:
        self._server, self._study, self._owner = server, study, ""

    def facts(self) -> dict[str, Any]:
        facts = self._server.facts(f"studies/{self._study}/study.json")
        if not facts:
            raise _no_such(self._study)
        self._owner = str(facts.get("asked_by") or "-")
        return facts

    def read(self, run: int, offset: int) -> bytes:
        return self._server.get(study_logs.path_of(self._owner, self._study, run), offset=offset) or b""


def _no_such(name: str) -> StudyError:
    return StudyError(f"there is no study {name!r} on this server; consilium queue lists those that run and wait")


def _as_text(study: Study, runtime: SuperlinkRuntime) -> Study:
    """The study without paths of this machine: a file of weights as its SHA-256, the others left out."""
    if isinstance(study.model, Deep | Encoder | ScatterOutline) and study.model.weights:
        study = replace(study, model=replace(study.model, weights=model_of(study)["weights"]))
    return replace(
        study,
        runtime=replace(runtime, authority="", certificate=""),
        tracking=Tracking(study.tracking.name),
        output_dir=Study().output_dir,
        data_root="",
        propose="document.json" if study.propose else "",
    )


def name_of(server: ServerConnection, run: int, wait_s: float = _WAIT_S, tell: Tell | None = None) -> str:
    """The name of the study that a run runs. A run may wait in the server's queue for as long as it takes, and may be
    submitted again there under another number; both are followed, also while the server is away for a while.

    Args:
        tell: gets a sentence whenever the run's place in the queue changes.

    Raises:
        StudyError: it runs none, and why.
        ServerUnreachable: it neither waits nor was started within this time.
    """
    ends, told = time.monotonic() + wait_s, ""
    while True:
        try:
            facts = server.facts(f"runs/{run}.json")
            place = "" if facts else _place(server.facts(f"runs/{SHOWN}"), run)
        except (ServerUnreachable, ValueError):
            if time.monotonic() > ends:
                raise
            facts, place = {}, ""
        if "error" in facts:
            raise StudyError(str(facts["error"]))
        if "study" in facts:
            return str(facts["study"])
        if "again" in facts:
            run, ends = int(facts["again"]), time.monotonic() + wait_s
        if place:
            ends = time.monotonic() + wait_s
        if place and place != told and tell is not None:
            tell(place)
        told = place or told
        if time.monotonic() > ends:
            raise ServerUnreachable(
                f"the server accepted run {run}, but has not started it; see consilium-server status there"
            )
        time.sleep(_POLL_S / 2)


def _place(queue: dict[str, Any], run: int) -> str:
    """A run's place in the server's queue, in a sentence; ``""`` if it is not in it."""
    waiting = [one["run"] for one in queue.get("waiting", [])]
    if run not in waiting:
        return ""
    ahead = waiting.index(run)
    before = f"{ahead} before it" if ahead else "it is the next"
    return (
        f"The study waits in the server's queue: {before}; {len(queue['running'])} of {queue['at_once']} places taken."
    )


def follow(server: ServerConnection, name: str, on_rounds: OnRounds) -> dict[str, Any]:
    """Wait until the study ends. ``on_rounds`` gets all rounds whenever one is committed. Returns ``study.json``.

    Raises:
        StudyError: the study failed, and why.
        ServerUnreachable: the server was unreachable for too long.
    """
    seen, away = 0, 0.0
    while True:
        try:
            facts = server.facts(f"studies/{name}/study.json")
            done = records(server.get(f"studies/{name}/federated/checkpoint.json"))
            away = 0.0
        except (ServerUnreachable, ValueError):
            away = away or time.monotonic()
            if time.monotonic() - away > _WAIT_S:
                raise
            time.sleep(_POLL_S)
            continue
        if len(done) > seen:
            on_rounds(done)
            seen = len(done)
        if facts.get("state") == STOPPED:
            raise StudyStopped(f"{name}: {facts['error']} It does not go on.")
        if facts.get("state") == "failed":
            raise StudyError(f"{facts['error']}\nThe same command resumes after the last committed round.")
        if facts.get("state") == "finished":
            return facts
        time.sleep(_POLL_S)


def finished(server: ServerConnection, name: str) -> dict[str, Any]:
    """``study.json`` of a study that has finished.

    Raises:
        StudyError: there is none of that name, or it has not finished, and why.
        ServerUnreachable
    """
    facts = server.facts(f"studies/{name}/study.json") if re.fullmatch(_NAME, name) else {}
    if not facts:
        raise _no_such(name)
    if facts.get("state") == FINISHED:
        return facts
    if facts.get("state") == STOPPED:
        raise StudyStopped(f"{name}: {facts['error']} It does not go on.")
    if facts.get("state") == "failed":
        raise StudyError(f"{name} has failed: {facts['error']}")
    raise StudyError(f"{name} has not ended yet; the settings that began it, or resume={name}, wait for it")


def fetch(server: ServerConnection, name: str, files: list[str], folder: Path) -> list[Path]:
    """Download a study's results into a local folder. Returns the files.

    Raises:
        StudyError: the server names a file outside the study's folder, or does not have it.
    """
    fetched = []
    for file in files:
        path = (folder / file).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise StudyError(f"the server names a file outside the study's folder: {file}")
        content = server.get(f"studies/{name}/{file}", _LARGEST_MODEL)
        if content is None:
            raise StudyError(f"the server no longer has studies/{name}/{file}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
        fetched.append(path)
    return fetched


def document(server: ServerConnection, run: int) -> bytes:
    """The document of a study that was proposed, as the server wrote it.

    Raises:
        StudyError: it was not written, and why.
    """
    name = name_of(server, run)
    ends = time.monotonic() + _WAIT_S
    while time.monotonic() < ends:
        if (content := server.get(f"studies/{name}/document.json")) is not None:
            return content
        facts = server.facts(f"studies/{name}/study.json")
        if facts.get("state") == "failed" and facts.get("run") == run:
            raise StudyError(facts["error"])
        time.sleep(_POLL_S / 2)
    raise StudyError(f"{name}: the server wrote no document")
