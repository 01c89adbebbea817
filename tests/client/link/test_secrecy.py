"""What is for the hospital alone is looked at on the disk: what others may reach is found, counted and named."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.cohort.cache import ExampleCache
from client.link import secrecy
from client.site import SiteSettings
from client.sources.pacs import spool
from tasks import task as tasks
from tasks.machine.checklist import Claim, ClaimState
from tasks.machine.disk import private_folder, write_private

PREPARED = "Only their owner can access prepared images and their index"


def claims(settings: SiteSettings) -> dict[str, Claim]:
    return {claim.promise: claim for claim in secrecy.claims(settings)}


@pytest.fixture
def settings(provision_hospital: Callable[..., SiteSettings], tmp_path: Path) -> SiteSettings:
    archive: dict[str, object] = {
        "kind": "dicomweb",
        "task": "breast_ultrasound",
        "issuer": "a",
        "url": "https://a/",
        "path": "spool",
    }
    archive |= {"scope": {"modalities": ["US"]}, "labels": "labels.csv"}
    return provision_hospital(sources=[yaml.safe_load(yaml.safe_dump(archive))])


def as_before(settings: SiteSettings) -> list[Path]:
    """What release 0.1.0 left in a hospital whose umask was 022."""
    before = os.umask(0o022)
    try:
        files = [settings.catalog / "index.sqlite", settings.catalog / "examples" / "t" / "ab" / "ab.safetensors"]
        files += [settings.catalog / "inputs" / "x.safetensors", settings.kept / "k.safetensors", settings.log]
        files += [settings.audit_log.parent / "pending" / "d.json", settings.link / "logs" / "trainer.log"]
        files += [
            settings.ledger.with_name(settings.ledger.name + "-wal"),
            settings.sources[0].path / "images" / "i.dcm",
        ]
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    finally:
        os.umask(before)
    return files


def test_everything_that_an_older_release_left_open_is_found_and_the_remedy_closes_it(settings: SiteSettings) -> None:
    files = as_before(settings)
    failed = [claim for claim in secrecy.claims(settings) if claim.state is ClaimState.FAIL]
    assert len(failed) == 7
    assert all(any(f"{path}" in claim.found or "more" in claim.found for claim in failed) for path in files)
    for claim in failed:
        subprocess.run(claim.remedy, shell=True, check=True)
    assert {claim.state for claim in secrecy.claims(settings)} == {ClaimState.OK}
    assert len(claims(settings)) == 3 + 7


def test_many_are_counted_and_the_first_named_with_their_modes(settings: SiteSettings) -> None:
    as_before(settings)
    told = claims(settings)[PREPARED]
    assert f"{settings.catalog} (mode 0755)" in told.found
    assert told.found.endswith("and 5 more")
    assert f"{settings.catalog}" in told.remedy


def test_use_closes_what_was_open(settings: SiteSettings) -> None:
    """An ingest meets the files of an older release; the index is the catalog's own, see ``test_catalog``."""
    as_before(settings)
    private_folder(settings.catalog)
    (settings.catalog / "index.sqlite").chmod(0o600)
    cache = ExampleCache(settings, tasks.get("breast_ultrasound"))
    cache.sweep(set())
    with spool.opened(settings.sources[0].path, "a", 1):
        pass
    found = claims(settings)
    assert found[PREPARED].state is ClaimState.OK
    assert found["Only their owner can access images from the archive (source 1)"].state is ClaimState.OK


def test_what_is_not_here_is_passed_over(settings: SiteSettings) -> None:
    assert [promise for promise in claims(settings) if promise.startswith("Only their owner")] == []


def test_what_cannot_be_looked_at_is_no_promise(settings: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(settings.catalog / "index.sqlite", b"x")

    def refused(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    told = claims(settings)[PREPARED]
    assert (told.state, "Permission denied" in told.found) == (ClaimState.WARN, True)


def test_what_is_another_users_needs_that_user(settings: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    as_before(settings)
    monkeypatch.setattr(os, "geteuid", lambda: settings.key.stat().st_uid + 1)
    assert "not all are yours" in claims(settings)[PREPARED].remedy
