"""What processes stand on: disks that are full, clocks that are wrong, a certificate that has expired."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from server.cli import people
from server.deployment import pki
from server.deployment.server_dir import read
from tests.e2e.deployment.federation import Federation, until
from tests.e2e.deployment.packages import debian
from tests.e2e.drills.drill import SEEN, Seen, study


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of its own, in memory, so small that it can be filled."""
    path.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs root: a small file system must be mounted")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(folder: Path) -> Path:
    """Use up all that is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def test_the_disk_of_a_hospital_is_full(drilled: Federation) -> None:
    hospital = drilled.hospitals[1]
    disk = drilled.folder / "disk"
    original = hospital.site.read_text("utf-8")
    hospital.stop()
    with small_disk(disk, "8m"):
        values = yaml.safe_load(original)
        for name in ("ledger", "audit_log"):
            for part in hospital.site.parent.glob(f"{values[name]}*"):
                shutil.copy(part, disk / part.name)
            values[name] = str(disk / values[name])
        hospital.site.write_text(yaml.safe_dump(values), "utf-8")
        hospital.start()
        try:
            filler = fill(disk)
            with study(drilled, after=1) as running:
                running.break_now()
                first = drilled.rounds()[0]
                filler.unlink()
                SEEN.append(
                    Seen("disk of a hospital full", first["seconds"], running.recovered(), str(first["dropped"]))
                )
            assert first["dropped"][hospital.name].startswith("train: refused with LEDGER_BROKEN")
            assert hospital.name in drilled.rounds()[-1]["hospitals"]
        finally:
            hospital.stop()
            for name in ("ledger", "audit_log"):
                for part in disk.glob(f"{Path(values[name]).name}*"):
                    shutil.copy(part, hospital.site.parent / part.name)
            hospital.site.write_text(original, "utf-8")
            hospital.start()


def test_the_disk_of_the_server_is_full(drilled: Federation) -> None:
    with small_disk(drilled.home / "studies", "12m"), study(drilled, after=1) as running:
        running.break_now()
        filler = fill(drilled.home / "studies")
        log = drilled.home / "logs" / "studies.log"
        ended = log.read_text().count("its process ended with code 1")
        noticed = running.noticed(
            lambda: log.read_text().count("its process ended with code 1") > ended, "the study's process has ended", 240
        )
        assert len(drilled.rounds()) == running.before
        time.sleep(10)
        filler.unlink()
        SEEN.append(Seen("disk of the server full", noticed, running.recovered(), "goes on once there is room"))


def test_the_servers_certificate_expires_and_is_renewed(drilled: Federation) -> None:
    home = read(drilled.home)
    logs = [hospital.site.parent / f"{hospital.name}.run.log" for hospital in drilled.hospitals]
    before = [log.read_text().count("has expired") for log in logs]
    with study(drilled, after=1) as running:
        running.break_now()
        pki.issue_server(home, days=-1)
        try:
            noticed = running.noticed(
                lambda: all(log.read_text().count("has expired") > n for log, n in zip(logs, before, strict=True)),
                "both hospitals say that it has expired",
            )
        finally:
            people.renew(home=drilled.home)
        SEEN.append(Seen("certificate expired, then renewed", noticed, running.recovered(), "hospitals do nothing"))


def test_the_clock_of_a_hospital_is_wrong(drilled: Federation) -> None:
    debian({"faketime": "faketime"})
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    hospital = drilled.hospitals[0]
    log = hospital.site.parent / f"{hospital.name}.run.log"
    hospital.stop()
    told = log.read_text().count("s ahead of the server's")
    started = time.monotonic()
    hospital.start(LD_PRELOAD=str(library), FAKETIME="+120s", FAKETIME_DONT_FAKE_MONOTONIC="1")
    try:
        until(lambda: log.read_text().count("s ahead of the server's") > told, 90, "the hospital says so")
        noticed = time.monotonic() - started
        with study(drilled, "federation.patience_s=15", after=1) as running:
            running.break_now()
            dropped = drilled.rounds()[0]["dropped"]
            hospital.stop()
            hospital.start()
            SEEN.append(Seen("clock of a hospital 120 s ahead", noticed, running.recovered(), str(dropped)))
        assert list(dropped) == [hospital.name]
    finally:
        hospital.stop()
        hospital.start()
