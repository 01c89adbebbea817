"""The gateway's program; ``client.link.gateway`` sets its options.

Tested in ``tests/client/link/test_flower_private.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

from client.link.flower_private import supernode
from tasks.machine.disk import keep_to_owner
from tasks.machine.pulse import ALIVE, HEARD, Pulse

if __name__ == "__main__":
    keep_to_owner()
    signs = [Path(os.environ[name]) if name in os.environ else None for name in (ALIVE, HEARD)]
    supernode(Pulse(signs[0]), Pulse(signs[1], 0))
