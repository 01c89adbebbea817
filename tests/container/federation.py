"""A server and two hospitals, from the compose files as they are shipped and the commands that the READMEs give.

The server publishes its two doors on an address of this machine that nobody else can reach; the gateways dial it from
their own networks, so every byte goes the way it goes in a real federation, but for the cable.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks import task as tasks
from tasks.task import PhantomHospital
from tests.container.engine import Engine

ROOT = Path(__file__).parent.parent.parent
ADDRESS = "198.51.100.7"
"""Of the block that RFC 5737 sets aside for documentation."""
USER = 10001
TASK = "breast_ultrasound"
SETTINGS = (
    "model.resolution=16", "model.J=2", "model.L=2", "model.pool=2", "training.steps=2", "training.sample_rate=0.8",
    "training.images_per_patient=1", "federation.rounds=3",
    "evaluation.uninformative=allow",  # so few patients tell nothing
)  # fmt: skip


def until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"not within {seconds:g} s: {what}"
        time.sleep(1)


@dataclass
class Stack:
    """The containers of one compose file."""

    engine: Engine
    folder: Path
    project: str
    variables: dict[str, str]

    def compose(self, *words: str, code: int | None = 0) -> str:
        return self.engine.compose(self.folder, self.project, *words, code=code, **self.variables)

    def container(self, service: str) -> str:
        return f"{self.project}_{service}_1"

    def inside(self, service: str, *words: str, given: str = "", code: int | None = 0) -> str:
        """What a command prints that is run in a container that runs already."""
        return self.engine.podman("exec", "-i", self.container(service), *words, given=given, code=code)

    def healthy(self, service: str) -> bool:
        """What the health check of the compose file says."""
        return self.engine.succeeds("healthcheck", "run", self.container(service))


@dataclass
class Federation:
    """Everything that runs, and the researcher's folder."""

    engine: Engine
    server: Stack
    hospitals: dict[str, Stack]
    desk: Path

    def researcher(self, *words: str) -> str:
        """The command ``consilium``, in a container of the server's image, from a network that is neither side's."""
        where = (f"runtime.address={ADDRESS}:8444", "runtime.authority=/desk/authority.crt")
        command = ("experiment=deployed", "output_dir=/desk/out", *where, "runtime.certificate=/desk/rosalind.pem")
        options = ("-v", f"{self.desk}:/desk", "--workdir", "/desk", "--entrypoint", "consilium")
        image = self.server.variables["IMAGE"]
        return self.engine.run(image, *command, *SETTINGS, *words, options=options)


@contextmanager
def federation(engine: Engine, folder: Path, site_image: str, server_image: str) -> Iterator[Federation]:
    """A federation that is up, with every hospital admitted."""
    subprocess.run(["ip", "address", "replace", f"{ADDRESS}/32", "dev", "lo"], check=True)
    stacks: list[Stack] = []
    try:
        stacks.append(_server(engine, folder / "server", server_image))
        desk = folder / "desk"
        _belongs(desk)
        _fetch(stacks[0], "invitation.json", folder)
        _fetch(stacks[0], "pki/authority.crt", desk)
        (folder / "invitation.json").chmod(0o644)
        hospitals = {}
        for number, name in enumerate(("alder", "birch")):
            hospitals[name] = _hospital(engine, folder / name, name, number, site_image)
            stacks.append(hospitals[name])
            _join(stacks[0], hospitals[name], folder / "invitation.json")
        stacks[0].inside("server", "consilium-server", "researcher", "--home", "/server", "rosalind")
        _fetch(stacks[0], "researchers/rosalind.pem", desk)
        yield Federation(engine, stacks[0], hospitals, desk)
    finally:
        for stack in reversed(stacks):
            stack.compose("down", "--volumes", code=None)
        subprocess.run(["ip", "address", "del", f"{ADDRESS}/32", "dev", "lo"], check=False)


def _server(engine: Engine, folder: Path, image: str) -> Stack:
    folder.mkdir()
    shutil.copy(ROOT / "server" / "container" / "compose.yaml", folder)
    made = Stack(engine, folder, "coordinator", {"IMAGE": image, "HOSPITALS": ADDRESS, "RESEARCHERS": ADDRESS})
    words = ("init", "--home", "/server", "--host", ADDRESS, "--researchers", "0.0.0.0:8444")
    made.compose("run", "--rm", "-T", "server", *words)
    made.compose("up", "-d")
    until(lambda: made.healthy("server"), 600, "the server is well")
    return made


def _hospital(engine: Engine, folder: Path, name: str, number: int, image: str) -> Stack:
    """Its folder as the README has it: compose.yaml, site.yaml, an empty link, and images somewhere."""
    tasks.get(TASK).draw_phantom(
        folder / "archive", PhantomHospital(name, patients=36 + 4 * number, images_per_patient=(1, 2)), seed=5
    )
    shutil.copy(ROOT / "client" / "container" / "compose.yaml", folder)
    example = (ROOT / "client" / "container" / "site.example.yaml").read_text("utf-8")
    changed = {"example-hospital": name, "# server: federation.example.org:8443": f"server: {ADDRESS}:8443",
               "public_size: 200": "public_size: 30"}  # fmt: skip
    for old, new in changed.items():
        assert old in example, f"site.example.yaml does not say {old}"
        example = re.sub(re.escape(old), new, example)
    (folder / "site.yaml").write_text(example, "utf-8")
    _belongs(folder / "link")
    variables = {"IMAGE": image, "DICOM": str(folder / "archive"), "INSIDE": f"10.231.{94 + number}"}
    return Stack(engine, folder, name, variables)


def _join(server: Stack, hospital: Stack, invitation: Path) -> None:
    mounted = ("-v", f"{invitation}:/invitation.json:ro")
    once = ("run", "--rm", "-T", "--no-deps")
    words = ("enroll", "--invitation", "/invitation.json", "--out", "link/request.json")
    hospital.compose(*once, *mounted, "gateway", *words)
    for command in ("init", "ingest"):
        hospital.compose(*once, "trainer", command)
    request = (hospital.folder / "link" / "request.json").read_text("utf-8")
    server.inside("server", "consilium-server", "admit", "--home", "/server", "/dev/stdin", given=request)
    hospital.compose("up", "-d")


def _fetch(server: Stack, path: str, folder: Path) -> None:
    wanted = folder / Path(path).name
    server.engine.podman("cp", f"{server.container('server')}:/server/{path}", str(wanted))
    os.chown(wanted, USER, USER)


def _belongs(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, USER, USER)
