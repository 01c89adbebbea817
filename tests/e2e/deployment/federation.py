"""A whole federation on loopback: a server, hospitals and a researcher, as people would run them, in real processes.

Everything is started by the commands that people type, and ended by its own process id.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from client.cli import link
from client.setup import virtual
from conf import load
from conf.schema.federation import Phantom, PhantomFederation
from server.cli import people, server

SMALL = (
    "model.resolution=16", "model.J=2", "model.L=2", "model.pool=2", "training.steps=2", "training.sample_rate=0.8",
    "training.images_per_patient=1", "evaluation.uninformative=allow",  # so few patients tell nothing
)  # fmt: skip
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
CALM = QUIET | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
NAMES = ("alder", "birch", "cedar", "dogwood")


_given: set[int] = set()


def free_port() -> int:
    """A port that nobody uses at this moment, and that was not given before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def command(module: str, *words: str | Path) -> list[str]:
    """A command of ours, by the module that holds its entry point."""
    return [sys.executable, "-c", f"from {module} import main; main()", *map(str, words)]


def server_command(*words: str | Path) -> list[str]:
    return command("server.cli.main", *words)


def site_command(*words: str | Path) -> list[str]:
    return command("client.cli.main", *words)


def told(words: list[str], code: int = 0, **variables: str) -> str:
    """Output of a command that ends with this exit code."""
    ended = subprocess.run(words, capture_output=True, text=True, env=os.environ | CALM | variables, timeout=300)
    assert ended.returncode == code, f"{words[3:]}: code {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


class Process:
    """A command in the background, with its output in a file."""

    def __init__(self, words: list[str], log: Path, **variables: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | CALM | variables,
            )
        self.pid = self._process.pid

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float) -> int:
        return self._process.wait(seconds)

    def end(self, seconds: float = 60) -> None:
        if self.running():
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")


def until(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until something holds. Returns it."""
    ends = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > ends:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
    return found


@dataclass
class Hospital:
    """One hospital's folder and its running part."""

    name: str
    site: Path
    gateway: str
    metrics: str
    process: Process | None = None
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def link(self) -> Path:
        return self.site.parent / f"{self.name}.link"

    def start(self, **variables: str) -> None:
        self.process = Process(
            site_command("run", "--site", self.site, "--gateway", self.gateway),
            self.site.parent / f"{self.name}.run.log",
            **(self.variables | variables),
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.end()
        self.process = None

    def pid(self, part: str) -> int | None:
        """Process id of ``gateway`` or ``trainer``."""
        return pid_in(self.link / "both.json", part)

    def log(self, part: str) -> str:
        path = self.link / "logs" / f"{part}.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""


def pid_in(state: Path, program: str) -> int | None:
    try:
        pid = json.loads(state.read_text("utf-8"))[program]["pid"]
        return None if pid is None else int(pid)
    except (OSError, ValueError, KeyError):
        return None


class Federation:
    """The server's folder, its hospitals, and one researcher."""

    def __init__(self, folder: Path, hospitals: int = 2, rounds: int = 3, settings: tuple[str, ...] = SMALL) -> None:
        self.folder, self.home = folder, folder / "home"
        self.hospitals_port, self.researchers_port = free_port(), free_port()
        self.superlink_port, self.mlflow_port = free_port(), free_port()
        self.metrics = f"127.0.0.1:{free_port()}"
        self.server: Process | None = None
        self.settings = (*settings, f"federation.rounds={rounds}")
        self.hospitals = [
            Hospital(name, site, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
            for name, site in _sites(folder, hospitals, self.settings)
        ]

    def init(self) -> None:
        server.init(
            host="localhost",
            hospitals=f"127.0.0.1:{self.hospitals_port}",
            researchers=f"127.0.0.1:{self.researchers_port}",
            superlink_port=self.superlink_port,
            mlflow_port=self.mlflow_port,
            home=self.home,
        )
        file = self.home / "server.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text("utf-8")) | {"metrics": self.metrics}), "utf-8")

    def up(self) -> None:
        self.server = Process(server_command("up", "--home", self.home), self.folder / "up.log")
        until(self.well, 180, "the server is well")

    def well(self) -> bool:
        """Whether all programs of the server say that they are well."""
        try:
            programs = json.loads((self.home / "up.json").read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return len(programs) == 4 and all(program["well"] for program in programs.values())

    def status(self) -> dict[str, Any]:
        words = server_command("status", "--home", self.home, "--json")
        ended = subprocess.run(words, capture_output=True, text=True, env=os.environ | CALM, timeout=120)
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    def enroll(self, hospital: Hospital) -> None:
        before = hospital.site.read_text("utf-8")
        values = yaml.safe_load(before)
        values |= {"server": f"localhost:{self.hospitals_port}", "link": hospital.link.name, "public_size": 20}
        values["metrics"] = hospital.metrics
        values["policy"] |= {
            "max_epsilon_life": 10_000.0,
            "max_steps": 1000,
            "max_rounds": 100,
        }  # it takes part in many studies here
        hospital.site.write_text(yaml.safe_dump(values), "utf-8")
        if values != yaml.safe_load(before):  # who comes back with a new key has these terms already
            told(site_command("ledger", "rebase", "--yes", "--by", "the tests", "--site", hospital.site))
        request = self.folder / f"{hospital.name}.request.json"
        link.enroll(invitation=self.home / "invitation.json", out=request, site=hospital.site)
        people.admit(request, home=self.home)

    def researcher(self, name: str = "rosalind") -> Path:
        path = self.home / "researchers" / f"{name}.pem"
        if not path.exists():
            people.researcher(name, home=self.home)
        return path

    def study_words(self, *words: str, name: str = "rosalind") -> list[str]:
        return command(
            "server.__main__", "experiment=deployed", f"output_dir={self.folder / 'outputs'}",
            f"runtime.address=localhost:{self.researchers_port}",
            *self._sent_to(name), *self.settings, *words,
        )  # fmt: skip

    def _sent_to(self, name: str) -> list[str]:
        """What a researcher was sent lies on a machine of their own, which outlives the server's."""
        own = self.folder / "researchers" / name
        own.mkdir(parents=True, exist_ok=True)
        for path in (self.home / "pki" / "authority.crt", self.researcher(name)):
            shutil.copy(path, own / path.name)
        return [f"runtime.authority={own / 'authority.crt'}", f"runtime.certificate={own / f'{name}.pem'}"]

    def study(self, *words: str) -> Process:
        """A researcher's command in the background."""
        return Process(self.study_words(*words), self.folder / "study.log")

    def pid(self, program: str) -> int | None:
        return pid_in(self.home / "up.json", program)

    def newest(self) -> Path | None:
        """Folder of the newest study."""
        found = list((self.home / "studies").glob("*/study.json"))
        return max(found, key=lambda path: path.stat().st_mtime_ns).parent if found else None

    def facts(self) -> dict[str, Any]:
        """``study.json`` of the newest study."""
        newest = self.newest()
        return json.loads((newest / "study.json").read_text("utf-8")) if newest else {}

    def rounds(self) -> list[dict[str, Any]]:
        """The committed rounds of the newest study."""
        newest = self.newest()
        pointer = newest / "federated" / "checkpoint.json" if newest else None
        return list(json.loads(pointer.read_text("utf-8"))["rounds"]) if pointer and pointer.exists() else []

    def close(self) -> None:
        for hospital in self.hospitals:
            hospital.stop()
        if self.server is not None:
            self.server.end()


def _sites(folder: Path, hospitals: int, settings: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Settings of simulated hospitals whose images were read in."""
    here = [word for word in settings if not word.startswith("federation.patience_s")]  # simulated ones never wait
    study = load.load(["experiment=demo", "evaluation.epsilon=4.0", "evaluation.bins=16", *here])
    federation = study.federation
    assert isinstance(federation, PhantomFederation)
    federation.hospitals = {name: Phantom(patients=30 + 4 * n) for n, name in enumerate(NAMES[:hospitals])}
    study.output_dir = str(folder / "hospitals")
    founded = virtual.provision_virtual_hospitals(study, folder / "hospitals", lambda *_: None)
    yield from founded.federated.items()


@contextmanager
def federation(
    folder: Path, hospitals: int = 2, rounds: int = 3, settings: tuple[str, ...] = SMALL
) -> Iterator[Federation]:
    """A federation that is up, with every hospital admitted and taking part."""
    made = Federation(folder, hospitals, rounds, settings)
    try:
        made.init()
        made.up()
        for hospital in made.hospitals:
            made.enroll(hospital)
            hospital.start()
        made.researcher()
        yield made
    finally:
        made.close()
