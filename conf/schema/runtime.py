"""Where the hospitals' code runs.

Tested in ``tests/conf/test_load.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from conf.schema.constraints import CountOrNone, SettingsGroup, matches


@dataclass
class Runtime(SettingsGroup):
    """Where the hospitals' code runs."""

    name: str = "local"
    """``local``: the hospitals are played on this machine. ``superlink``: they are elsewhere, behind a server."""
    workers: CountOrNone = 0
    """Processes that play the hospitals; 0 plays them all in this one."""


@dataclass(kw_only=True)
class SuperlinkRuntime(Runtime):
    """A server with hospitals that are enrolled there; ``consilium-server`` runs it."""

    name: str = "superlink"
    """Set by the choice."""
    address: Annotated[str, matches(r"[A-Za-z0-9.-]+:\d{1,5}", "must be HOST:PORT")]
    """``host:port`` of the server's door for researchers."""
    authority: str
    """File with the certificate of the server's authority (PEM)."""
    certificate: str
    """File with the researcher's own key and certificate (PEM), from ``consilium-server researcher``."""
    follow: bool = True
    """Wait for the study and show how far it is; ``false`` leaves once the server has it."""
