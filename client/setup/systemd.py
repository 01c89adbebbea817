"""The hospital's units of systemd: gateway and trainer apart, as in containers.

The gateway cannot see images, ledger or the hospital's key; the trainer can neither see the gateway's key nor exchange
a packet with another machine, unless an archive is queried or a webhook told. Both run as one user, because they share
a secret.
"""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from client.site import SiteSettings
from client.sources.settings import DicomwebSource, DimseSource
from tasks.machine.systemd import Service, outermost, write

USER = "consilium-site"
FOLDER = "systemd"
"""Beside ``site.yaml``: what root installs."""
_GATEWAY_MB, _TRAINER_MB = 1024, 7168
"""As in compose.yaml; to the trainer's comes what training may use (``max_memory_mb``)."""
_GPUS = ("char-nvidia", "char-nvidia-frontend", "char-nvidia-uvm", "char-nvidia-caps")
"""What NVIDIA's driver calls its devices in /proc/devices, by release; systemd skips those that are not there."""


def write_units(settings: SiteSettings, site: Path) -> list[Path]:
    """Write the units of the hospital with this ``site.yaml``, and the script that installs them. Returns the files."""
    own = [site.resolve(), settings.key, settings.weights, *_written(settings)]
    return write(site.resolve().parent / FOLDER, services(settings, site), own)


def services(settings: SiteSettings, site: Path) -> list[Service]:
    """Gateway and trainer of the hospital with this ``site.yaml``."""
    site = site.resolve()
    data = [settings.catalog, settings.kept, settings.weights, *_images(settings)]
    records = [settings.ledger, settings.audit_log, settings.people, settings.key]
    gateway = Service(
        "consilium-gateway",
        "Consilium: the hospital's connection to the server",
        _command(site, "gateway"),
        USER,
        site.parent,
        writes=[settings.link],
        memory_mb=_GATEWAY_MB,
        hides=[*records, *data],
        environment=site.parent / "gateway.env",
    )
    trainer = Service(
        "consilium-trainer",
        "Consilium: trains on the hospital's images",
        _command(site, "trainer"),
        USER,
        site.parent,
        writes=_written(settings),
        memory_mb=_TRAINER_MB + settings.max_memory_mb,
        reads=[site, site.parent / FOLDER, settings.weights, *_images(settings)],
        hides=[settings.link / "node.key"],
        peers=_peers(settings),
        devices=() if settings.trainer.device == "cpu" else _GPUS,
        after=["consilium-gateway.service"],
    )
    return [gateway, trainer]


def _command(site: Path, part: str) -> list[str]:
    return [str(Path(sys.executable).parent / "consilium-site"), "run", "--only", part, "--site", str(site)]


def _images(settings: SiteSettings) -> list[Path]:
    """Folders and files of images, in the order of the settings."""
    return [source.path for source in settings.sources if not isinstance(source, DicomwebSource | DimseSource)]


def _written(settings: SiteSettings) -> list[Path]:
    """What the trainer writes to; SQLite writes beside its files."""
    beside = (settings.ledger.parent, settings.audit_log.parent, settings.log.parent)
    return outermost((*beside, settings.catalog, settings.kept, settings.link))


def _peers(settings: SiteSettings) -> list[str] | None:
    """Addresses of the archives, and of the hook that is told what waits; ``None`` if one has a name, which may change
    its address."""
    dimse = [source for source in settings.sources if isinstance(source, DimseSource)]
    hosts = [host for source in dimse for host in (source.host, *(sender for _, sender in source.accepted()))]
    hosts += [source.address()[0] for source in settings.sources if isinstance(source, DicomwebSource)]
    if settings.notify.webhook_file:
        return None
    hosts += [urlsplit(settings.notify.webhook).hostname or ""] if settings.notify.webhook else []
    try:
        return [str(ip_address(host)) for host in dict.fromkeys(hosts) if host != "localhost"]
    except ValueError:
        return None
