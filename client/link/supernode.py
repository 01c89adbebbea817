"""The gateway's program; ``client.link.gateway`` says with which options."""

from __future__ import annotations

from client.link.flower_private import supernode

if __name__ == "__main__":
    supernode()
