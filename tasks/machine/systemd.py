"""Units of systemd for Consilium's programs: a user of its own, and nothing that a program does not need.

What a container guarantees, a unit guarantees as well: no root, no capabilities, no new privileges, a filter of system
calls, and a file system that is read-only but for the named paths (systemd.exec(5)). So the security checklist is the
same. Memory may be executable, because libraries under torch compile at run time.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.machine.disk import write_whole

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_MISUSED = 2
"""Exit code of our commands for what only a person can mend: starting again would not help."""

_RESTRICTED = (
    "PrivateTmp=yes",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RemoveIPC=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
    "SystemCallErrorNumber=EPERM",
)
"""What none of our programs needs, by systemd.exec(5)."""


@dataclass(frozen=True)
class Service:
    """One unit.

    Attributes:
        name: of the unit, without ``.service``.
        does: its description, for ``systemctl status``.
        command: program and arguments; the program by its whole path.
        user: a system user, whom the script that installs the unit creates.
        folder: the program's working directory.
        writes: files and folders that it may write to. Everything else is read-only.
        reads: what is read-only although it lies in one of those.
        hides: files and folders that it cannot see. Those that do not exist are skipped.
        memory_mb: in MiB; at more it is killed and started again.
        peers: if not ``None``, the only addresses that it may exchange packets with, beside this machine's own.
        environment: a file with variables, one NAME=VALUE in each line; it may be missing.
        after: units that are started before.
        low_port: whether it listens on a port below 1024.
        devices: groups of devices that it may open, as DeviceAllow= names them; with none it sees no hardware at all.
    """

    name: str
    does: str
    command: Sequence[str]
    user: str
    folder: Path
    writes: Sequence[Path]
    memory_mb: int
    reads: Sequence[Path] = ()
    hides: Sequence[Path] = ()
    peers: Sequence[str] | None = None
    environment: Path | None = None
    after: Sequence[str] = ()
    low_port: bool = False
    devices: Sequence[str] = ()


def unit(service: Service) -> str:
    """The text of the unit."""
    named = (Path(service.command[0]), service.folder, *service.writes, *service.reads, *service.hides)
    at_home = any(path.is_relative_to(home) for path in (*named, Path(sys.base_prefix)) for home in _HOMES)
    right = "CAP_NET_BIND_SERVICE" if service.low_port else ""
    lines = [
        "[Unit]",
        f"Description={service.does}",
        f"After={' '.join(['network-online.target', *service.after])}",
        "Wants=network-online.target",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(_word(word).replace('$', '$$') for word in service.command)}",
        f"User={service.user}",
        f"WorkingDirectory={_word(str(service.folder), quote=False)}",
        *([f"EnvironmentFile=-{_word(str(service.environment), quote=False)}"] if service.environment else []),
        "Restart=always",
        "RestartSec=10",
        f"RestartPreventExitStatus={_MISUSED}",
        "KillMode=mixed",
        "TimeoutStopSec=60",
        f"MemoryMax={service.memory_mb}M",
        "TasksMax=1024",
        "UMask=0077",
        "",
        "NoNewPrivileges=yes",
        f"CapabilityBoundingSet={right}",
        f"AmbientCapabilities={right}",
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if at_home else 'yes'}",
        *(f"ReadWritePaths={_word(str(path))}" for path in service.writes),
        *(f"ReadOnlyPaths={_word(f'-{path}')}" for path in service.reads),
        *(f"InaccessiblePaths={_word(f'-{path}')}" for path in service.hides),
        *_RESTRICTED,
        *_devices(service.devices),
        *(
            []
            if service.peers is None
            else ["IPAddressDeny=any", f"IPAddressAllow={' '.join(['localhost', *service.peers])}"]
        ),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _devices(groups: Sequence[str]) -> list[str]:
    """By systemd.resource-control(5): of /dev only these can be opened, beside /dev/null and its like."""
    if not groups:
        return ["PrivateDevices=yes"]
    return ["PrivateDevices=no", "DevicePolicy=closed", *(f"DeviceAllow={group} rw" for group in groups)]


def users(user: str, what: str, folder: Path) -> str:
    """The line of sysusers.d(5) that creates the user, who cannot log in."""
    return f'u {user} - "{what}" {_word(str(folder))}\n'


def write(folder: Path, services: Sequence[Service], own: Sequence[Path]) -> list[Path]:
    """Write the units, the user that they share, and ``install.sh``, which root runs; older ones are replaced. Returns
    the files.

    Args:
        own: files and folders that are to belong to the user, with all that lies in them.
    """
    folder.mkdir(exist_ok=True)
    user = services[0].user
    files = {f"{one.name}.service": unit(one) for one in services}
    files[f"{user}.sysusers"] = f'u {user} - "Consilium" {_word(str(services[0].folder))}\n'
    files["install.sh"] = _script(folder, services, own)
    for name, text in files.items():
        write_whole(folder / name, text.encode())
    return [folder / name for name in files]


def _script(folder: Path, services: Sequence[Service], own: Sequence[Path]) -> str:
    user = services[0].user
    lines = [
        ["install", "-m", "644", f"{folder}/{user}.sysusers", f"/etc/sysusers.d/{user}.conf"],
        ["systemd-sysusers", f"{user}.conf"],
        ["chown", "-R", f"{user}:", *map(str, outermost(own))],
        ["chown", "-R", "root:", str(folder)],  # what root runs is root's
        *(["install", "-m", "644", f"{folder}/{one.name}.service", "/etc/systemd/system/"] for one in services),
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", *(one.name for one in services)],
        ["systemctl", "restart", *(one.name for one in services)],
    ]
    head = "#!/bin/sh\n# Installs the units beside it, or upgrades them. For root.\nset -eu\n"
    return head + "install -d /etc/sysusers.d\n" + "\n".join(map(shlex.join, lines)) + "\n"


def outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths in order, without those that lie in another one."""
    wanted = set(paths)
    return [path for path in sorted(wanted) if not any(path.is_relative_to(other) for other in wanted - {path})]


def _word(text: str, quote: bool = True) -> str:
    """As systemd reads it back: specifiers are escaped, and what has spaces is quoted."""
    text = text.replace("%", "%%")
    if not quote or not any(character in text for character in " \t\"'\\;"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
