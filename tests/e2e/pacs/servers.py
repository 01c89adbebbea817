"""Debian's archives as child processes: Orthanc and dcmqrscp. Each is ended by its own process id."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.e2e.pacs.network import free_port

_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
_AE = "ORTHANC"


class Orthanc:
    """One Orthanc with its own database; it may be killed and started again."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        folder.mkdir(parents=True)
        self.folder, self.http, self.dicom = folder, free_port(), free_port()
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._auth = next(iter(settings.get("RegisteredUsers", {}).items()), None)
        configuration = {
            "Name": "HOSPITAL",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [_PLUGIN],
            "HttpPort": self.http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": _AE,
            "DicomPort": self.dicom,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Ssl": False},
        } | settings
        (folder / "orthanc.json").write_text(json.dumps(configuration), "utf-8")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = ["/usr/sbin/Orthanc", str(self.folder / "orthanc.json")]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.starts += 1
        _until(self._answers, self._process, self.folder / "log")

    def _answers(self) -> bool:
        try:
            requests.get(f"http://127.0.0.1:{self.http}/system", auth=self._auth, timeout=2).raise_for_status()
        except requests.RequestException:
            return False
        return _listens(self.dicom)

    def load(self, paths: list[Path]) -> None:
        """Store files without a change to any byte."""
        for path in paths:
            url = f"http://127.0.0.1:{self.http}/instances"
            requests.post(url, path.read_bytes(), auth=self._auth, timeout=30).raise_for_status()

    def delete(self, **attributes: str) -> None:
        """Delete every study that has these attributes, such as ``PatientID="A"``."""
        root = f"http://127.0.0.1:{self.http}"
        found = requests.post(f"{root}/tools/find", json={"Level": "Study", "Query": attributes}, timeout=30).json()
        assert found, f"no study with {attributes}"
        for study in found:
            requests.delete(f"{root}/studies/{study}", timeout=30).raise_for_status()

    def told(self, level: str, keyword: str) -> list[str]:
        """An attribute of everything at a level: ``patients``, ``studies``, ``series`` or ``instances``."""
        found = requests.get(f"http://127.0.0.1:{self.http}/{level}?expand", timeout=30).json()
        return sorted(one["MainDicomTags"].get(keyword, "") for one in found)

    def kill(self) -> None:
        """As a power cut would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)


@contextmanager
def orthanc(folder: Path, paths: list[Path], **settings: Any) -> Iterator[Orthanc]:
    """A running Orthanc that has these files."""
    archive = Orthanc(folder, **settings)
    try:
        archive.start()
        archive.load(paths)
        yield archive
    finally:
        archive.stop()


@contextmanager
def dcmqrscp(folder: Path, paths: list[Path]) -> Iterator[int]:
    """The port of a running dcmqrscp that has copies of these files, as they are."""
    storage = folder / "storage"
    storage.mkdir(parents=True)
    for path in paths:
        (storage / path.name).write_bytes(path.read_bytes())
    port = free_port()
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(_DCMQRSCP.format(port=port, storage=storage), "utf-8")
    copies = sorted(map(str, storage.glob("*.dcm")))
    subprocess.run(["dcmqridx", str(storage), *copies], check=True, capture_output=True)
    with (folder / "log").open("wb") as log:
        command = ["dcmqrscp", "--config", str(configuration), str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _until(lambda: _listens(port), process, folder / "log")
        yield port
    finally:
        process.terminate()
        process.wait(10)


_DCMQRSCP = """NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
QR {storage} RW (500, 1024mb) ANY
AETable END
"""


def _until(answers: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 20
    while not answers():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text('utf-8', 'replace')[-2000:]}")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
