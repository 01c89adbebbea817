"""The checklist for the server's security officer: each claim about the server, verified while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from ipaddress import ip_address

from server.deployment import nginx, people, pki
from server.deployment.server_dir import FOLDERS, ServerDir
from tasks.machine import exposition, process
from tasks.machine.checklist import Checklist, Claim, ClaimState
from tasks.machine.supervision import holder
from tasks.protocol import enrolment
from tasks.protocol.study import release

UNSEEN = (
    "Whether the disk is encrypted and its backups are protected: pki/ holds the authority's key.",
    "Firewalls: hospitals need the hospitals' endpoint, researchers theirs from an internal network, nothing else.",
    "Who else has an account on this machine: they can reach the SuperLink directly, behind nginx.",
    "Whether the image that runs is the one that was reviewed: pin it by digest.",
)
"""What matters as well, but cannot be verified from inside."""

_NAMES = {"superlink": "SuperLink", "studies": "studies' runner", "mlflow": "MLflow server"}
_PACKAGES = ("consilium-fl", "flwr", "torch", "mlflow", "grpcio", "cryptography")


def checklist(server_dir: ServerDir, quiet: Mapping[str, str]) -> Checklist:
    """Verify every claim. Nothing is changed.

    Args:
        quiet: environment variables that programs must have, so that no library calls home.
    """
    return {
        "Programs": list(_programs(server_dir, quiet)),
        "Endpoints": [*_endpoints(server_dir), *_seen(server_dir)],
        "Secrets": list(_secrets(server_dir)),
        "Who may connect": list(_people(server_dir)),
        "Software": list(_software()),
    }


def _programs(server_dir: ServerDir, quiet: Mapping[str, str]) -> Iterator[Claim]:
    running = _running(server_dir)
    if not running:
        yield Claim("SuperLink, studies, MLflow and nginx run as they should", ClaimState.WARN, "none is running",
                    "Start the server, then repeat this check: consilium-server up")  # fmt: skip
    s = server_dir.settings
    inner = {"superlink": {("127.0.0.1", s.superlink_port)}, "mlflow": {("127.0.0.1", s.mlflow_port)}}
    outer = {(_address(s.hospitals_address), s.hospitals_port), (_address(s.researchers_address), s.researchers_port)}
    for name, one in running.items():
        told = _NAMES.get(name, name)
        yield from process.hardening(told, one)
        yield process.listening(told, one, outer if name == "nginx" else inner.get(name, set()))
        if name != "nginx":
            yield process.silent(told, one, quiet)


def _address(text: str) -> str:
    """As the kernel writes it; a name is resolved."""
    try:
        return str(ip_address(text))
    except ValueError:
        return next(iter(sorted(process.addresses(text, 0))), (text, 0))[0]


def _running(server_dir: ServerDir) -> dict[str, process.Process]:
    try:
        programs = json.loads(server_dir.state.read_text("utf-8"))
        return {name: process.look(told["pid"]) for name, told in programs.items() if told["pid"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _endpoints(server_dir: ServerDir) -> Iterator[Claim]:
    s = server_dir.settings
    written = server_dir.path / "fence" / "nginx.conf"
    same = written.exists() and written.read_text("utf-8") == nginx.configuration(server_dir)
    state = ClaimState.OK if same else ClaimState.FAIL
    yield Claim("The reverse proxy lets through what is listed and nothing else", state,
                f"hospitals: {len(nginx.FLEET)} calls, by their certificates; everybody: /health and admission; "
                f"people: {len(nginx.CONTROL)} call, for those whose role allows it, and read access to studies' files "
                "and MLflow" if same else
                f"{written} is not what this release writes",
                "" if same else "consilium-server down, then up", f"less {written}")  # fmt: skip
    wide = _address(s.researchers_address) in ("0.0.0.0", "::")
    yield Claim("The researchers' endpoint is on an internal network", ClaimState.WARN if wide else ClaimState.OK,
                f"bound to {s.researchers_address}:{s.researchers_port}, accepts people's certificates only",
                "Bind it to one internal address, or make sure that the container publishes it there only" if wide
                else "")  # fmt: skip
    days = pki.days_left(server_dir)
    state = ClaimState.FAIL if days < 0 else ClaimState.WARN if days < pki.WARN_DAYS else ClaimState.OK
    yield Claim("The server can prove its identity", state, f"its certificate is valid for {days:.0f} days",
                "" if state is ClaimState.OK else "consilium-server renew",
                f"openssl x509 -in {server_dir.certificate} -noout -dates")  # fmt: skip
    authority = enrolment.certificate_fingerprint(server_dir.authority.read_text("utf-8"))
    yield Claim("Its authority signs for this federation only", ClaimState.OK, f"fingerprint {authority}",
                see=f"openssl x509 -in {server_dir.authority} -noout -subject -fingerprint -sha256")  # fmt: skip


def _seen(server_dir: ServerDir) -> Iterator[Claim]:
    """The figures for Prometheus, and whom the server tells what waits for a person."""
    s = server_dir.settings
    if pid := holder(server_dir.lock):
        expected = process.addresses(*exposition.split(s.metrics)) if s.metrics else set()
        yield process.listening("supervisor", process.look(pid, alone=True), expected)
    if s.metrics:
        here = exposition.is_local(s.metrics)
        yield Claim("The figures for Prometheus can be read on this machine only",
                    ClaimState.OK if here else ClaimState.WARN, f"http://{s.metrics}/metrics, not encrypted",
                    "" if here else "Let a firewall or the container's network admit your Prometheus only")  # fmt: skip
    whom = s.notify.whom() or "nobody"
    yield Claim("Notices for the coordinator go where server.yaml says", ClaimState.OK, f"told: {whom}")


def _secrets(server_dir: ServerDir) -> Iterator[Claim]:
    paths = {
        "the authority's key": server_dir.path / "pki" / "authority.key",
        "the server's key": server_dir.certificate_key,
        "the SuperLink's key": pki.superlink_certificate(server_dir)[1],
    }
    paths |= {"the secret of the Runtime API": server_dir.superexec_secret}
    paths |= {f"{path.stem}'s certificate": path for path in sorted((server_dir.path / "researchers").glob("*.pem"))}
    yield from process.secrets(paths)
    there = [name for name in ("", *FOLDERS) if (server_dir.path / name).exists()]
    wide = [name for name in there if (server_dir.path / name).stat().st_mode & 0o077]
    yield Claim("No other user can read the server's folders", ClaimState.FAIL if wide else ClaimState.OK,
                f"{server_dir.path} and {len(FOLDERS)} folders in it have mode 0700" if not wide else
                f"open to others: {', '.join(str(server_dir.path / name) for name in wide)}",
                "chmod 700 each of them" if wide else "", f"ls -la {server_dir.path}")  # fmt: skip


def _people(server_dir: ServerDir) -> Iterator[Claim]:
    hospitals = server_dir.hospitals().values()
    told = "; ".join(f"{one.name}, key {one.key}" for one in hospitals) or "nobody yet"
    yield Claim("Only hospitals whose keys were compared on the telephone take part", ClaimState.OK, told,
                see="consilium-server status")  # fmt: skip
    names = [f"{one.name} ({one.role}, {days:.0f} days)" for one, days in people.everybody(server_dir)]
    revoked = sorted(path.stem for path in (server_dir.path / "researchers").glob("*.revoked"))
    yield Claim("Only people with a certificate can connect, each with one role", ClaimState.OK,
                ", ".join(names) or "nobody yet")  # fmt: skip
    if revoked:
        yield Claim("Revoked people cannot connect", ClaimState.OK, f"revoked: {', '.join(revoked)}",
                    see=f"openssl crl -in {server_dir.revoked} -noout -text")  # fmt: skip


def _software() -> Iterator[Claim]:
    found = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    yield Claim("A release is running", ClaimState.OK, f"Consilium {release()}: {found}", see="pip list")
    yield Claim("No code that a researcher sends is run", ClaimState.OK,
                "a run's bundle is empty; studies are run by the installed code",
                see="tests/e2e/deployment/test_study.py runs a hostile bundle")  # fmt: skip
