"""The security officer's checklist: every guarantee, verified against the running installation."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from client.errors import SiteError, SiteMisconfigured
from client.ledger.audit_log import Receipt
from client.ledger.records import faults_of_records, open_records
from client.link import gateway, secrecy, separation
from client.oversight import approvals, halt
from client.oversight.approvals import Decision
from client.site import SiteSettings, delta_cap, secret
from client.sources.settings import DicomwebSource, DimseSource
from tasks.machine import exposition, process
from tasks.machine.checklist import Checklist, Claim, ClaimState
from tasks.machine.supervision import holder
from tasks.protocol import enrolment
from tasks.protocol.study import release

UNSEEN = (
    "Whether the disk is encrypted and its backups are protected.",
    "Firewalls: only the gateway needs an outgoing connection, to the server's address and port; none are incoming.",
    "Who else has an account on this machine: anyone who can read the trainer's files can read the images.",
    "Whether the running container image is the one that was audited: pin it by digest.",
)
"""What else matters, and cannot be verified from inside."""

_PACKAGES = ("consilium-fl", "flwr", "torch", "opacus", "pydicom", "dp-accounting")
_STATES = ("both", "gateway", "trainer")
_FEW_DAYS = 30


def checklist(settings: SiteSettings, site: Path, listen: str) -> Checklist:
    """Look at everything. Nothing is changed; the server is dialled once, from where the gateway runs.

    Args:
        site: path of ``site.yaml``.
        listen: ``host:port`` at which the gateway is meant to listen for the trainer.
    """
    running = _running(settings)
    return {
        "Programs": [*_programs(settings, running, listen), *separation.claims(settings, running)],
        "Connection to the server": list(_way(settings)),
        "Secrets": list(secrecy.claims(settings)),
        "What leaves": [*_leaving(settings), *_told(settings)],
        "Privacy": list(_privacy(settings)),
        "Images": list(_images(settings, running.get("trainer"))),
        "Software": list(_software(site)),
    }


def _running(settings: SiteSettings) -> dict[str, process.Process]:
    """Gateway and trainer, as far as they run where this is asked."""
    running: dict[str, process.Process] = {}
    for name in _STATES:
        try:
            programs = json.loads((settings.link / f"{name}.json").read_text("utf-8"))
            running |= {part: process.look(program["pid"]) for part, program in programs.items() if program["pid"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return running


def _supervisors(settings: SiteSettings) -> Iterator[process.Process]:
    """The processes of ``consilium-site run`` here, without the programs that they keep running."""
    for name in _STATES:
        with suppress(OSError):  # in another container
            if pid := holder(settings.link / f"{name}.lock"):
                yield process.look(pid, alone=True)


def _programs(settings: SiteSettings, running: Mapping[str, process.Process], listen: str) -> Iterator[Claim]:
    missing = [part for part in _parts(settings) if part not in running]
    yield Claim("Gateway and trainer are running", ClaimState.WARN if missing else ClaimState.OK,
                f"here: {', '.join(sorted(running)) or 'none'}" + _other_place(settings),
                f"Start the {' and the '.join(missing)}, then repeat this check" if missing else "")  # fmt: skip
    host, _, port = listen.rpartition(":")
    inner = process.addresses(host, int(port))
    for name, one in running.items():
        yield from process.hardening(name, one)
        yield process.listening(name, one, inner if name == "gateway" else ())
        yield process.silent(name, one, gateway.QUIET)
    expected = process.addresses(*exposition.split(settings.metrics)) if settings.metrics else set()
    for one in _supervisors(settings):
        yield process.listening("supervisor", one, expected)
    if settings.metrics:
        here = exposition.is_local(settings.metrics)
        yield Claim("The figures for Prometheus can be read on this machine only",
                    ClaimState.OK if here else ClaimState.WARN, f"http://{settings.metrics}/metrics, not encrypted",
                    "" if here else "Let a firewall or the container's network admit your Prometheus only")  # fmt: skip
    if trainer := running.get("trainer"):
        allowed = inner | {end for source in settings.sources for end in _archive(source)}
        yield process.dialling("trainer", trainer, allowed, "the gateway and your archives")
    if (dialler := running.get("gateway")) and settings.server:
        yield process.dialling("gateway", dialler, _outward(settings.server, dialler), "the server or your proxy")


def _parts(settings: SiteSettings) -> Sequence[str]:
    """What belongs here: a trainer apart has no key for the server, a gateway apart has no ledger."""
    if gateway.is_apart(settings):
        return ("trainer",)
    return ("gateway", "trainer") if settings.ledger.exists() else ("gateway",)


def _other_place(settings: SiteSettings) -> str:
    elsewhere = {"gateway", "trainer"} - set(_parts(settings))
    return "".join(f"; run this check at the {part} as well" for part in elsewhere)


def _archive(source: object) -> set[tuple[str, int]]:
    """Where an archive is; a web archive may stand behind several addresses."""
    if isinstance(source, DimseSource):
        return process.addresses(source.host, source.port)
    if isinstance(source, DicomwebSource):
        host, port = source.address()
        return process.addresses(host, port)
    return set()


def _outward(server: str, dialler: process.Process) -> set[tuple[str, int]]:
    """The server, and the proxy that the gateway was started with."""
    host, _, port = server.rpartition(":")
    allowed = process.addresses(host, int(port))
    for name in ("https_proxy", "HTTPS_PROXY"):
        proxy = urlsplit(dialler.environment.get(name, ""))
        allowed |= process.addresses(proxy.hostname, proxy.port or 3128) if proxy.hostname else set()
    return allowed


def _way(settings: SiteSettings) -> Iterator[Claim]:
    """Only where the gateway is: a separate trainer has neither a key for the server nor a connection to it."""
    if "gateway" not in _parts(settings):
        return
    try:
        link = gateway.link(settings)
    except SiteMisconfigured as error:
        yield Claim("Every request is signed with a key created here", ClaimState.WARN, str(error))
        return
    try:
        own = enrolment.own_fingerprint(link.key.read_bytes())
        authority = enrolment.certificate_fingerprint(link.authority.read_text("utf-8"))
    except (OSError, ValueError) as error:
        yield Claim("The gateway's key and the server's authority can be read", ClaimState.FAIL, str(error),
                    "Delete both and run consilium-site enroll again")  # fmt: skip
        return
    yield Claim("Every request is signed with a key created here", ClaimState.OK, f"P-384, fingerprint {own}",
                see=f"compare it with the coordinator; {link.key} never leaves")  # fmt: skip
    yield Claim("Only one certificate authority is trusted", ClaimState.OK, f"fingerprint {authority}",
                see=f"openssl x509 -in {link.authority} -noout -subject -fingerprint -sha256")  # fmt: skip
    promise = "The server is authenticated, and all traffic is encrypted"
    see = f"openssl s_client -connect {link.server} -CAfile {link.authority} -verify_return_error </dev/null"
    try:
        spoken, cipher, expires = gateway.handshake(link)
    except OSError as error:
        yield Claim(promise, ClaimState.FAIL, f"{link.server}: {error}", "Nothing is sent until this is fixed", see)
        return
    days = (expires.timestamp() - time.time()) / 86400
    found = f"{spoken}, {cipher}; certificate valid for {days:.0f} days"
    few = days < _FEW_DAYS
    yield Claim(
        promise, ClaimState.WARN if few else ClaimState.OK, found, "Ask the coordinator to renew it" if few else "", see
    )


def _leaving(settings: SiteSettings) -> Iterator[Claim]:
    """Only where the ledger is: a separate gateway has none."""
    if "trainer" not in _parts(settings):
        return
    see = "consilium-site ledger verify"
    promise = "Every message that left has a receipt, and ledger and audit log are intact"
    try:
        key = secret(settings)
        faults = faults_of_records(settings.ledger, settings.audit_log, key)
        if not faults:
            with open_records(settings.ledger, settings.audit_log, key) as records:
                receipts, rows = records.audit_log.receipts(), records.ledger.head().seq + 1
                missing = records.without_receipt()
                decisions = list(approvals.decisions(records.audit_log, settings).values())
    except SiteError as error:
        faults = [str(error)]
    if faults:
        yield Claim(
            promise, ClaimState.FAIL, "; ".join(faults), "Stop (consilium-site stop) and restore both from backup", see
        )
        return
    agree = f"{rows} rows of the ledger and {len(receipts)} receipts agree; {_kinds(receipts)}"
    agree += f"; {len(missing)} replies were computed and not sent" if missing else ""
    yield Claim(promise, ClaimState.OK, agree, see=see)
    yield from _approved(decisions, settings.policy.approvers)
    yield Claim("One command stops everything", ClaimState.OK,
                "stopped: nothing leaves" if halt.stopped(settings.stop_file) else "not stopped",
                see=f"consilium-site stop, or: touch {settings.stop_file}")  # fmt: skip


def _approved(decisions: Sequence[Decision], approvers: int) -> Iterator[Claim]:
    automatic = [decision for decision in decisions if decision.approved and decision.automatic]
    approved = [decision for decision in decisions if decision.approved and not decision.automatic]
    names = sorted({signature.by for decision in approved for signature in decision.signatures})
    found = f"{len(approved)} approved" + (f", by {', '.join(names)}" if names else "")
    found += f"; {len(automatic)} approved automatically" if automatic else ""
    yield Claim("Only studies approved by a person here can run", ClaimState.WARN if automatic else ClaimState.OK,
                found, "policy.auto_approve is for simulated hospitals" if automatic else "",
                "consilium-site approvals")  # fmt: skip
    if approvers > 1:
        by_name = [d.study for d in approved if any(not signature.account for signature in d.signatures)]
        found = f"every approved study has the signatures of {approvers} or more"
        if by_name:
            found += f"; of {', '.join(by_name)} by name only, without a login account known to the system"
        yield Claim(f"{approvers} different people approve each study", ClaimState.WARN if by_name else ClaimState.OK,
                    found, "Let each approve under a login account of their own" if by_name else "",
                    "consilium-site audit --kind approval")  # fmt: skip


def _told(settings: SiteSettings) -> Iterator[Claim]:
    whom = settings.notify.whom()
    yield Claim("Notices for staff have nothing of patients, and go where site.yaml says", ClaimState.OK,
                f"told: {whom}; studies that wait, programs, budget, certificate, disk" if whom else "nobody is told",
                see="the lines notify in site.yaml; client/link/observed.py has every text")  # fmt: skip


def _kinds(receipts: Sequence[Receipt]) -> str:
    if not receipts:
        return "nothing has left"
    counted: dict[str, int] = {}
    for receipt in receipts:
        counted[receipt.message] = counted.get(receipt.message, 0) + 1
    total = sum(receipt.bytes for receipt in receipts)
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counted.items())) + f", {total / 1e6:.2f} MB in all"


def _privacy(settings: SiteSettings) -> Iterator[Claim]:
    policy = settings.policy
    yield Claim("A patient's privacy loss has a limit that no researcher can raise", ClaimState.OK,
                f"epsilon {policy.max_epsilon_study:g} per study, {policy.max_epsilon_life:g} for all studies, delta "
                f"{delta_cap(settings):.1g}", see="consilium-site ledger")  # fmt: skip
    lax = policy.without_privacy or policy.scores == "exact" or policy.auto_approve
    yield Claim("No score and no update leaves without noise", ClaimState.WARN if lax else ClaimState.OK,
                "a simulated hospital, whose policy allows it" if lax else f"scores: {policy.scores}; updates: noised",
                "Only a simulated hospital may do this" if lax else "")  # fmt: skip
    listed = settings.withdrawals is not None
    yield Claim("Patients who withdraw are removed", ClaimState.OK if listed else ClaimState.WARN,
                f"the list is {settings.withdrawals}" if listed else "no list is set",
                "" if listed else "Set `withdrawals` in site.yaml; the list may be empty")  # fmt: skip


def _images(settings: SiteSettings, trainer: process.Process | None) -> Iterator[Claim]:
    """Only where the trainer is, and as it sees them."""
    for number, source in enumerate(settings.sources, 1):
        name = f"source {number} ({source.kind})"
        if isinstance(source, DicomwebSource | DimseSource):
            secure = source.tls if isinstance(source, DimseSource) else source.url.startswith("https")
            yield Claim(f"Images of {name} are transferred encrypted", ClaimState.OK if secure else ClaimState.WARN,
                        "TLS" if secure else "unencrypted",
                        "" if secure else "Use TLS, or secure the network between archive and trainer")  # fmt: skip
            if isinstance(source, DimseSource) and source.receive_at:
                yield _port(name, source)
        elif "trainer" in _parts(settings):
            seen = separation.view(trainer, source.path)
            writable = os.access(seen, os.W_OK)
            cannot = "cannot be written" if seen.exists() else "does not exist here, and cannot be written"
            yield Claim(f"Images of {name} are read-only here", ClaimState.WARN if writable else ClaimState.OK,
                        f"{source.path} {'can be written' if writable else cannot} by user {os.geteuid()}",
                        "Mount it read-only, as the compose file does" if writable else "",
                        f"touch {source.path}/x")  # fmt: skip


def _port(name: str, source: DimseSource) -> Claim:
    """Where an archive connects to us; the port is closed but while an ingest retrieves or a commitment is awaited."""
    senders = ", ".join(f"{title}@{host}" for title, host in source.accepted())
    why = "images by C-MOVE" if source.retrieve == "move" else "reports of Storage Commitment"
    return Claim(f"Only its archive can send to the port of {name}", ClaimState.OK if source.tls else ClaimState.WARN,
                 f"{source.receive_at}, for {why}, open only while they are awaited; admitted: {senders}, "
                 + ("with a certificate of its authority" if source.tls else "by AE title and address only"),
                 "" if source.tls else "Use TLS on both sides, or let a firewall admit the archive only",
                 f"ss -ltnp | grep {source.endpoint()[1]}")  # fmt: skip


def _software(site: Path) -> Iterator[Claim]:
    found = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    yield Claim("The running code is a release", ClaimState.OK, f"Consilium {release()}: {found}", see="pip list")
    try:
        there = f"mlflow {version('mlflow')} is installed; the hospital's code does not import it"
        yield Claim("No experiment tracker is installed", ClaimState.WARN, there, "The container image has none")
    except PackageNotFoundError:
        yield Claim("No experiment tracker is installed", ClaimState.OK, "MLflow is not installed")
    digest = hashlib.sha256(site.read_bytes()).hexdigest()
    yield Claim("The settings are the audited ones", ClaimState.OK, f"SHA-256 {digest}", see=f"sha256sum {site}")
