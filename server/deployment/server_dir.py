"""The server's folder: settings, certificates, admitted hospitals, and where each part keeps its files."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.errors import ServerMisconfigured
from tasks import faults
from tasks.machine import exposition, yaml_text
from tasks.machine.disk import private_file, write_secret, write_whole
from tasks.machine.logs import MEGABYTES
from tasks.machine.notices import Hook
from tasks.machine.pulse import ALIVE, HEARD

Port = Annotated[int, Field(ge=1, le=65535)]


class ServerSettings(BaseModel):
    """``server.yaml``. nginx listens on the two outer ports; the two inner ones are bound to loopback."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")]
    """Name or address by which hospitals and researchers reach the server; its certificate is issued for it."""
    hospitals_address: str = "0.0.0.0"
    """Address that the hospitals' endpoint is bound to."""
    hospitals_port: Port = 8443
    """The hospitals' endpoint: Fleet API and health, nothing else."""
    researchers_address: str = "127.0.0.1"
    """Address that the researchers' endpoint is bound to: an internal network, never the internet."""
    researchers_port: Port = 8444
    """The researchers' endpoint: requires a certificate from ``consilium-server researcher``."""
    superlink_port: Port = 9443
    """Loopback only."""
    mlflow_port: Port = 9500
    """Loopback only."""
    studies_at_once: Annotated[int, Field(ge=1, le=100)] = 5
    """So many studies run at the same time, each in a process of some 350 MB; the others wait:
    ``consilium-server queue``."""
    studies_of_one_person: Annotated[int | None, Field(ge=1, le=100)] = None
    """So many of them may be one person's, the others wait; by default one place stays free for others."""
    log_megabytes: Annotated[float, Field(ge=0.1, le=10_000)] = MEGABYTES
    """A log of this size, in 10^6 bytes, is set aside. Three older ones of each are kept."""
    metrics: exposition.Address | None = None
    """``ADDRESS:PORT`` at which Prometheus finds the server's figures, such as ``127.0.0.1:9464``; not encrypted."""
    notify: Hook = Hook()
    """Whom to tell what waits for a person."""

    @property
    def most_of_one_person(self) -> int:
        return self.studies_of_one_person or max(1, self.studies_at_once - 1)


@dataclass(frozen=True)
class Hospital:
    """A hospital that was admitted.

    Attributes:
        node: its number in the SuperLink.
        key: the fingerprint of its public key.
        public_size: what it declares; ``None`` where it was admitted by an older release.
        public_key: PEM, with which it can be registered again; ``None`` likewise, until the SuperLink has told it.
        revoked: when it was revoked; ``None`` while it may take part.
    """

    name: str
    node: int
    key: str
    admitted: str
    public_size: int | None = None
    public_key: str | None = None
    revoked: str | None = None


@dataclass(frozen=True)
class ServerDir:
    """The folder, and the settings in it."""

    path: Path
    settings: ServerSettings

    @property
    def authority(self) -> Path:
        return self.path / "pki" / "authority.crt"

    @property
    def certificate(self) -> Path:
        return self.path / "pki" / "server.crt"

    @property
    def certificate_key(self) -> Path:
        return self.path / "pki" / "server.key"

    @property
    def revoked(self) -> Path:
        return self.path / "pki" / "revoked.pem"

    @property
    def invitation(self) -> Path:
        return self.path / "invitation.json"

    @property
    def superexec_secret(self) -> Path:
        return self.path / "superlink" / "superexec.secret"

    @property
    def database(self) -> Path:
        return self.path / "superlink" / "state.db"

    @property
    def signs(self) -> dict[str, Path]:
        """Files that the program which plays studies touches while it works, and while the SuperLink answers it."""
        return {ALIVE: self.path / "superlink" / "studies.alive", HEARD: self.path / "superlink" / "studies.heard"}

    @property
    def runs(self) -> Path:
        """One small file per run: which study it runs, or why it runs none."""
        return self.path / "runs"

    @property
    def witness(self) -> Path:
        """One small file per hospital: the last ledger hash seen of it."""
        return self.path / "witness"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def log_bytes(self) -> int:
        return int(self.settings.log_megabytes * 1e6)

    @property
    def notices(self) -> Path:
        """What the hook of ``notify`` was told."""
        return self.path / "notices.json"

    @property
    def lock(self) -> Path:
        return self.path / "up.lock"

    @property
    def backed_up(self) -> Path:
        """How the last backup went."""
        return self.path / "backed-up.json"

    @property
    def state(self) -> Path:
        return self.path / "up.json"

    @property
    def superlink(self) -> str:
        return f"127.0.0.1:{self.settings.superlink_port}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.settings.mlflow_port}"

    @property
    def queue(self) -> Path:
        """One file per study that was submitted and has no folder yet."""
        return self.path / "queue"

    @property
    def admission(self) -> Path:
        """One small file per key, by its fingerprint, for the hospital that holds it: whether it may take part."""
        return self.path / "fence" / "admission"

    @property
    def shown(self) -> Path:
        """Links to the logs of studies' runs, where nginx serves them to whoever asks for the study."""
        return self.path / "fence" / "shown"

    def hospitals(self) -> dict[str, Hospital]:
        """The hospitals that may take part, by name.

        Raises:
            ServerMisconfigured: the register cannot be read.
        """
        return {one.name: one for one in self.ever_admitted() if one.revoked is None}

    def ever_admitted(self) -> list[Hospital]:
        """The whole register, with those that were revoked: no key is admitted again.

        Raises:
            ServerMisconfigured: it cannot be read.
        """
        path = self.path / "hospitals.json"
        if not path.exists():
            return []
        try:
            values: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
            return [Hospital(**one) for one in values]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ServerMisconfigured(f"cannot read {path}: {error}; restore it from your backup") from error

    def register(self, hospitals: dict[str, Hospital]) -> None:
        """Replace the hospitals that may take part; those that were revoked stay so."""
        values = [one for one in self.ever_admitted() if one.revoked is not None]
        self._write([*hospitals.values(), *values])

    def _write(self, hospitals: list[Hospital]) -> None:
        write_whole(
            self.path / "hospitals.json", json.dumps([vars(one) for one in hospitals], indent=1).encode(), mode=0o600
        )

    @contextmanager
    def changing(self) -> Iterator[list[Hospital]]:
        """The whole register, to be changed: nobody else changes it meanwhile, and what the list holds at the end is
        written, if it is something else.

        Raises:
            ServerMisconfigured: it cannot be read.
        """
        with private_file(self.path / "hospitals.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            before = self.ever_admitted()
            hospitals = list(before)
            yield hospitals
            if hospitals != before:
                self._write(hospitals)


FOLDERS = (
    "pki",
    "superlink",
    "mlflow",
    "studies",
    "runs",
    "fence",
    "logs",
    "researchers",
    "weights",
    "witness",
    "queue",
)
_FILE = "server.yaml"
UNKNOWN = "unknown.json"
"""In the folder of admissions: what a hospital is told whose key was never admitted."""


def make(path: Path, settings: ServerSettings) -> ServerDir:
    """Create folders that only their owner can enter, and ``server.yaml`` if there is none.

    Raises:
        ServerMisconfigured: others can enter the folder, and that cannot be changed; or its name means something to
            nginx, whose configuration names it.
    """
    if not re.fullmatch(r"[\w./+@,~-]+", str(path.resolve())):
        raise ServerMisconfigured(f"{path.resolve()}: the path may have no spaces, quotes or other signs of nginx's")
    for folder in (path, *(path / name for name in FOLDERS)):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        except PermissionError as error:
            raise ServerMisconfigured(f"{folder} must belong to user {os.geteuid()}, who runs this: {error}") from error
    if not (path / _FILE).exists():
        write_whole(path / _FILE, yaml.safe_dump(settings.model_dump(), sort_keys=False).encode())
    secret = path / "superlink" / "superexec.secret"
    if not secret.exists():
        write_secret(secret, os.urandom(32))
    return read(path)


def read(path: Path) -> ServerDir:
    """Read the folder that ``consilium-server init`` created.

    Raises:
        ServerMisconfigured: listing every problem of ``server.yaml``.
    """
    file = path.resolve() / _FILE
    if not file.exists():
        raise ServerMisconfigured(f"{file} does not exist: set --home FOLDER, or create one: consilium-server init")
    _refuse_root(file.parent)
    try:
        return ServerDir(path.resolve(), ServerSettings.model_validate(yaml_text.values(file.read_text("utf-8-sig"))))
    except OSError as error:
        raise ServerMisconfigured(f"cannot read {faults.of_system(error)}") from error
    except ValidationError as error:
        raise ServerMisconfigured(f"{file}: {faults.of_values(error)}") from None
    except yaml_text.BadYaml as error:
        raise ServerMisconfigured(f"cannot read {file}: {error}") from error
    except UnicodeDecodeError as error:
        raise ServerMisconfigured(f"cannot read {file}: {error}; it must be text in UTF-8") from error


def _refuse_root(folder: Path) -> None:
    """Refuse root in another user's folder: what root writes there is root's alone, and the server could not read it.

    Raises:
        ServerMisconfigured
    """
    owner = folder.stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"'#{owner}'"
        raise ServerMisconfigured(f"{folder} belongs to another user: run this as {name} (runuser -u {name} -- ...)")
