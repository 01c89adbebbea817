"""Chromium, a tracking server with passwords, and a study in it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.federation.embedded import Ended, play

USER, PASSWORD = "admin", "a password of twenty letters"
NOISED = ("evaluation.epsilon=8", "evaluation.bins=12", "evaluation.subgroups=[sex]", "evaluation.gate.auc=0.1")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser; installed where that is possible, skipped where it is not."""
    if found := shutil.which("chromium"):
        return found
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip("needs the Debian package chromium; only root on Debian can install it")
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"], check=True)
    return shutil.which("chromium") or pytest.fail("chromium was installed and is not there")


class Server:
    """``mlflow server`` with basic authentication on a port of this machine; it may be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self._folder / "auth.ini").write_text(
            "[mlflow]\ndefault_permission = NO_PERMISSIONS\n"
            f"database_uri = sqlite:///{self._folder / 'auth.db'}\nadmin_username = {USER}\n"
            f"admin_password = {PASSWORD}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        environment = os.environ | {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_AUTH_CONFIG_PATH": str(self._folder / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "only for this test",
        }
        command = [
            str(Path(sys.executable).with_name("mlflow")), "server", "--app-name", "basic-auth", "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder / 'store.db'}",
            "--artifacts-destination", str(self._folder / "artifacts"),
        ]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        ends = time.monotonic() + 180
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > ends:
                pytest.fail((self._folder / "log").read_text("utf-8", "replace")[-3000:])
            time.sleep(0.3)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=2).ok
        except requests.RequestException:
            return False

    def stop(self) -> None:
        """End it with the workers that it has started, which are in its session."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, 15)
            self._process.wait(30)


@dataclass(frozen=True)
class Tracked:
    """A server, a study that it took as it went, and one that ran while it was down."""

    server: Server
    study: Ended
    late: Ended


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracked]:
    """Two studies: one that the server took as it went, and one that it was told of after it had been down."""
    folder = tmp_path_factory.mktemp("mlflow")
    server = Server(folder)
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    output = folder / "outputs"
    try:
        late = play(output, "late", f"tracking.uri={server.uri}", "tracking=mlflow", "evaluation.arms=[]")
        server.start()
        study = play(output, "whole", f"tracking.uri={server.uri}", "tracking=mlflow", *NOISED)
        yield Tracked(server, study, late)
    finally:
        server.stop()
        patch.undo()
