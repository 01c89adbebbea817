"""What to show the security officer of the server: what it promises, each promise looked at as it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from ipaddress import ip_address

from server.deployment import nginx, pki
from server.deployment.server_dir import FOLDERS, ServerDir
from tasks.machine import process
from tasks.machine.checklist import Checklist, Claim, ClaimState
from tasks.protocol import enrolment
from tasks.protocol.study import release

UNSEEN = (
    "Whether the disk is encrypted and its backups are guarded: pki/ holds the authority's key.",
    "Firewalls: hospitals need the hospitals' door, researchers theirs from an inner network, nobody anything else.",
    "Who else has an account on this machine: they can dial the SuperLink itself, behind the fence.",
    "Whether the image that runs is the one that was examined: pin it by digest.",
)
"""What matters as well, and cannot be seen from inside."""

_NAMES = {"superlink": "SuperLink", "studies": "studies' runner", "mlflow": "MLflow server"}
_PACKAGES = ("consilium-fl", "flwr", "torch", "mlflow", "grpcio", "cryptography")


def checklist(home: ServerDir, quiet: Mapping[str, str]) -> Checklist:
    """Look at everything. Nothing is changed.

    Args:
        quiet: variables that programs must have, lest libraries call home.
    """
    return {
        "Programs": list(_programs(home, quiet)),
        "Doors": list(_doors(home)),
        "Secrets": list(_secrets(home)),
        "Who may come": list(_people(home)),
        "Software": list(_software()),
    }


def _programs(home: ServerDir, quiet: Mapping[str, str]) -> Iterator[Claim]:
    running = _running(home)
    if not running:
        yield Claim("SuperLink, studies, MLflow and fence run as they should", ClaimState.WARN, "none of them runs",
                    "Ask while they run: consilium-server up")  # fmt: skip
    s = home.settings
    inner = {"superlink": {("127.0.0.1", s.superlink_port)}, "mlflow": {("127.0.0.1", s.mlflow_port)}}
    outer = {(_address(s.hospitals_address), s.hospitals_port), (_address(s.researchers_address), s.researchers_port)}
    for name, one in running.items():
        told = _NAMES.get(name, name)
        yield from process.hardening(told, one)
        yield process.listening(told, one, outer if name == "fence" else inner.get(name, set()))
        if name != "fence":
            yield process.silent(told, one, quiet)


def _address(text: str) -> str:
    """As the kernel writes it; a name stands for the addresses that it has."""
    try:
        return str(ip_address(text))
    except ValueError:
        return next(iter(sorted(process.addresses(text, 0))), (text, 0))[0]


def _running(home: ServerDir) -> dict[str, process.Process]:
    try:
        programs = json.loads(home.state.read_text("utf-8"))
        return {name: process.look(told["pid"]) for name, told in programs.items() if told["pid"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _doors(home: ServerDir) -> Iterator[Claim]:
    s = home.settings
    written = home.path / "fence" / "nginx.conf"
    same = written.exists() and written.read_text("utf-8") == nginx.configuration(home)
    yield Claim("The fence lets through what is listed and nothing else", ClaimState.OK if same else ClaimState.FAIL,
                f"hospitals: {len(nginx.FLEET)} calls and /health; researchers: {len(nginx.CONTROL)} calls, studies' "
                "files and MLflow for reading" if same else f"{written} is not what this release writes",
                "" if same else "consilium-server down, then up", f"less {written}")  # fmt: skip
    wide = _address(s.researchers_address) in ("0.0.0.0", "::")
    yield Claim("The researchers' door is on an inner network", ClaimState.WARN if wide else ClaimState.OK,
                f"bound to {s.researchers_address}:{s.researchers_port}, opened by certificates only",
                "Bind it to one inner address, or see to it that the container publishes it there only" if wide
                else "")  # fmt: skip
    days = pki.days_left(home)
    state = ClaimState.FAIL if days < 0 else ClaimState.WARN if days < pki.WARN_DAYS else ClaimState.OK
    yield Claim("The server proves who it is", state, f"its certificate is valid for {days:.0f} days",
                "" if state is ClaimState.OK else "consilium-server renew",
                f"openssl x509 -in {home.certificate} -noout -dates")  # fmt: skip
    authority = enrolment.certificate_fingerprint(home.authority.read_text("utf-8"))
    yield Claim("Its authority signs for this federation alone", ClaimState.OK, f"fingerprint {authority}",
                see=f"openssl x509 -in {home.authority} -noout -subject -fingerprint -sha256")  # fmt: skip


def _secrets(home: ServerDir) -> Iterator[Claim]:
    paths = {"the authority's key": home.path / "pki" / "authority.key", "the server's key": home.certificate_key}
    paths |= {"the secret of the Runtime API": home.superexec_secret}
    paths |= {f"{path.stem}'s certificate": path for path in sorted((home.path / "researchers").glob("*.pem"))}
    yield from process.secrets(paths)
    wide = [name for name in ("", *FOLDERS) if (home.path / name).stat().st_mode & 0o077]
    yield Claim("Nobody else enters the server's folders", ClaimState.FAIL if wide else ClaimState.OK,
                f"{home.path} and {len(FOLDERS)} folders in it have mode 0700" if not wide else
                f"open to others: {', '.join(str(home.path / name) for name in wide)}",
                "chmod 700 them" if wide else "", f"ls -la {home.path}")  # fmt: skip


def _people(home: ServerDir) -> Iterator[Claim]:
    hospitals = home.hospitals().values()
    told = "; ".join(f"{one.name}, key {one.key}" for one in hospitals) or "nobody yet"
    yield Claim("Only hospitals take part whose keys were compared on the telephone", ClaimState.OK, told,
                see="consilium-server status")  # fmt: skip
    names = sorted(path.stem for path in (home.path / "researchers").glob("*.pem"))
    revoked = sorted(path.stem for path in (home.path / "researchers").glob("*.revoked"))
    yield Claim("Only researchers come in who hold a certificate", ClaimState.OK, ", ".join(names) or "nobody yet")
    if revoked:
        yield Claim("Who left comes in no more", ClaimState.OK, f"revoked: {', '.join(revoked)}",
                    see=f"openssl crl -in {home.revoked} -noout -text")  # fmt: skip


def _software() -> Iterator[Claim]:
    found = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    yield Claim("What runs is a release", ClaimState.OK, f"Consilium {release()}: {found}", see="pip list")
    yield Claim("No code that a researcher sends is run", ClaimState.OK,
                "a run's bundle is empty; studies are played by what is installed",
                see="tests/e2e/deployment/test_study.py plays a hostile bundle")  # fmt: skip
