"""The gateway's program; ``client.link.gateway`` sets its options.

Tested in ``tests/client/link/test_flower_gateway.py``.
"""

from __future__ import annotations

import argparse
import os
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from client.link import gateway
from client.link.flower_gateway import AGAIN_S, supernode
from tasks.machine.disk import keep_to_owner
from tasks.machine.pulse import ALIVE, HEARD, Pulse


def secured(words: Sequence[str], trying: Callable[[str], None]) -> ssl.SSLContext:
    """What the connection to the server is made with: the certificate that the server has for this hospital now, or had
    when it could last be asked. Waits until there is one.

    Args:
        words: the gateway's options.
        trying: told why it waits.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("--superlink", "--root-certificates", "--auth-supernode-private-key"):
        parser.add_argument(option, required=True)
    given, _ = parser.parse_known_args(words)
    key, authority = Path(given.auth_supernode_private_key), Path(given.root_certificates)
    link = gateway.Link(given.superlink, key, authority, key.with_name("trainer.secret"))
    while not (link.credential.keep(gateway.admission(link).get("certificate")) or link.credential.there):
        trying("it has no certificate for this hospital's key, or cannot be asked")
        time.sleep(AGAIN_S)
    return link.credential.context()


if __name__ == "__main__":
    keep_to_owner()
    signs = [Path(os.environ[name]) if name in os.environ else None for name in (ALIVE, HEARD)]
    supernode(Pulse(signs[0]), Pulse(signs[1], 0), lambda trying: secured(sys.argv[1:], trying))
