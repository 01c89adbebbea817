"""MLflow's server is one process, says nothing of who asks, and ends when it is told to."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from server.cli.server import QUIET


def test_the_command_becomes_the_server(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--uvicorn-opts", "--no-access-log"]
    words += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    words += ["--artifacts-destination", f"file://{tmp_path}/artifacts"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.tracking.serve", *words], stdout=output, stderr=subprocess.STDOUT, env=QUIET
        )
    try:
        ends = time.monotonic() + 120
        while not answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.2)
        assert psutil.Process(process.pid).children(recursive=True) == []
        assert "uvicorn" in " ".join(psutil.Process(process.pid).cmdline())
        assert "GET /health" not in log.read_text()
    finally:
        process.terminate()
    assert process.wait(30) in (0, -15)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=3).status_code == 200
    except httpx.HTTPError:
        return False
