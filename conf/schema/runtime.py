"""Where the hospitals' code runs.

Tested in ``tests/conf/test_load.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from conf.schema.constraints import CountOrNone, SettingsGroup, matches, one_of


@dataclass
class Runtime(SettingsGroup):
    """Where the hospitals' code runs."""

    name: str = "local"
    """``local``: the hospitals are played on this machine. ``superlink``: they are elsewhere, behind a server."""
    workers: CountOrNone = 0
    """Processes that play the hospitals; 0 plays them all in this one."""
    device: Annotated[str, matches(r"auto|cpu|mps|cuda(:\d{1,2})?", "must be auto, cpu, cuda, cuda:NUMBER or mps")] = (
        "cpu"
    )
    """What simulated hospitals train and score on; ``auto``: a GPU if there is one. Real ones decide for themselves."""
    precision: Annotated[str, one_of("float32", "bfloat16")] = "float32"
    """Of the products while they train: ``bfloat16`` is faster on newer GPUs, and less exact."""


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
