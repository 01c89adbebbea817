"""Where reports go, and whether that archive has an examination as it was scored.

Tested in ``tests/client/prediction/test_store.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.errors import SiteMisconfigured
from client.prediction.agreement import Standing, StoredObject, WrittenFacts, standing
from client.site import SiteSettings, secret
from client.sources.pacs.association import RemoteArchive
from client.sources.pacs.association_client import NoSearch
from client.sources.pacs.dicomweb import DicomwebArchive
from client.sources.pacs.dimse_search import searching
from client.sources.pacs.own import own_under
from client.sources.pacs.pace import Pace
from client.sources.pacs.search import Search
from client.sources.pacs.web import session_for
from client.sources.settings import DicomwebSource, DimseSource, FolderSource, is_loopback
from tasks.task import Task

_WHERE = re.compile(r"(?P<called>[^@\\\s]{1,16})@(?P<host>[A-Za-z0-9.-]+):(?P<port>\d{1,5})")
Target = RemoteArchive | DimseSource | DicomwebSource
_AGAIN = "Run `consilium-site ingest`, which retrieves what has changed, and predict again"


@dataclass(frozen=True)
class DimseTransport:
    """How an archive that is not a source is dialled; the attributes are those of ``DimseSource``."""

    tls: bool = False
    insecure: bool = False
    authority: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None


_IN_THE_CLEAR = DimseTransport()


def target_of(site: SiteSettings, task: Task, where: str = "", way: DimseTransport = _IN_THE_CLEAR) -> Target:
    """Where to store them: ``AET@host:port``, or the only archive among the task's sources.

    An address that one of the sources has is dialled as that source says, with its TLS.

    Args:
        way: how another address is dialled.

    Raises:
        SiteMisconfigured: what is given is no such address, or names and reports would cross the network in the clear
            without a person's word; or there is no archive, or more than one.
    """
    archives = [s for s in site.sources if isinstance(s, DimseSource | DicomwebSource)]
    if where:
        return _addressed(where, way, [source for source in archives if isinstance(source, DimseSource)])
    if way != _IN_THE_CLEAR:
        raise SiteMisconfigured("--tls, --authority, --certificate, --certificate-key and --insecure need --store-to")
    of_task = [source for source in archives if source.task == task.name]
    if len(of_task) != 1:
        raise SiteMisconfigured(
            f"{len(of_task)} sources of {task.name} are archives: choose one with --store-to AET@host:port"
        )
    return of_task[0]


def _addressed(where: str, way: DimseTransport, sources: Sequence[DimseSource]) -> Target:
    match = _WHERE.fullmatch(where)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise SiteMisconfigured(f"--store-to {where!r}: must be AET@host:port, such as PACS@pacs.example.org:104")
    host, port, called = match["host"], int(match["port"]), match["called"]
    known = [s for s in sources if (s.host, s.port, s.called_ae) == (host, port, called)]
    if known and way != _IN_THE_CLEAR:
        raise SiteMisconfigured(f"--store-to {where}: this archive is a source, and is dialled as site.yaml says")
    if known:
        return known[0]
    _require_safe(where, host, way)
    return RemoteArchive(
        host,
        port,
        called,
        tls=way.tls,
        authority=way.authority,
        certificate=way.certificate,
        certificate_key=way.certificate_key,
    )


def _require_safe(where: str, host: str, way: DimseTransport) -> None:
    problems = []
    if not way.tls and (way.authority or way.certificate or way.certificate_key):
        problems.append("--authority, --certificate and --certificate-key need --tls")
    if (way.certificate is None) != (way.certificate_key is None):
        problems.append("--certificate and --certificate-key belong together")
    if way.tls and way.insecure:
        problems.append("--tls and --insecure contradict each other")
    if not way.tls and not way.insecure and not is_loopback(host):
        problems.append(
            "reports with patients' names would cross the network unencrypted; add --tls (with --authority FILE if its "
            "certificate is your own authority's), or --insecure if the network itself is encrypted"
        )
    if problems:
        raise SiteMisconfigured(f"--store-to {where}: {'; '.join(problems)}")


def origins(site: SiteSettings, task: Task) -> list[Target]:
    """The archives that all of the task's catalogued images come from; none if some are in folders."""
    sources = [source for source in site.sources if source.task == task.name]
    if any(isinstance(source, FolderSource) for source in sources):
        return []
    return [source for source in sources if isinstance(source, DimseSource | DicomwebSource)]


class Judge:
    """Decides whether an examination's objects may be written."""

    def __init__(
        self, site: SiteSettings, target: Target, search: Search, others: dict[str, Search], unchecked: bool
    ) -> None:
        self._own, self._target = own_under(secret(site)), target
        self._search, self._others, self._unchecked = search, others, unchecked

    def judged(self, claims: Sequence[WrittenFacts]) -> tuple[str, tuple[StoredObject, ...]]:
        """Why nothing may be written, or ""; and what Consilium has written before."""
        known = False
        for name, search in self._others.items():
            found = standing(claims, search, self._own)
            if found.problems:
                return _differs(name, found), ()
            known |= found.known
        if self._others and not known:
            return f"{', '.join(self._others)}: has no such examination any more; it was deleted or moved. {_AGAIN}", ()
        return self._at_target(claims)

    def _at_target(self, claims: Sequence[WrittenFacts]) -> tuple[str, tuple[StoredObject, ...]]:
        name = name_of(self._target)
        try:
            found = standing(claims, self._search, self._own)
        except NoSearch as error:
            return ("" if self._unchecked else f"{name} cannot be asked ({error}). {_UNCHECKED}"), ()
        if found.problems:
            return _differs(name, found), ()
        if found.known:
            return "", found.own
        if not isinstance(self._target, RemoteArchive):
            return f"{name} has no such examination any more; it was deleted or moved. {_AGAIN}", ()
        return ("" if self._unchecked else f"{name} has no such examination. {_UNCHECKED}"), ()


_UNCHECKED = (
    "Only if it is not where these images come from, and is to have reports on its own, such as an archive of results: "
    "--unchecked"
)


def _differs(name: str, found: Standing) -> str:
    return f"{name} has changed since the images were read: {'; '.join(found.problems)}. {_AGAIN}"


@contextmanager
def searching_at(target: Target) -> Iterator[Search]:
    if isinstance(target, DicomwebSource):
        with closing(session_for(target)) as session, DicomwebArchive(target, session).searching() as search:
            yield search
    else:
        with searching(target, Pace(None)) as search:
            yield search


def name_of(target: Target) -> str:
    return target.url if isinstance(target, DicomwebSource) else f"{target.called_ae} at {target.host}:{target.port}"
