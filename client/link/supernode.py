"""The gateway's program; ``client.link.gateway`` sets its options.

Tested in ``tests/client/link/test_flower_private.py``.
"""

from __future__ import annotations

from client.link.flower_private import supernode
from tasks.machine.disk import keep_to_owner

if __name__ == "__main__":
    keep_to_owner()
    supernode()
