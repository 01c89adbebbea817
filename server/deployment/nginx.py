"""The reverse proxy: nginx in front of the SuperLink, which does not authenticate callers of its Control API.

There are two endpoints. Hospitals reach the Fleet API, with the certificate that ``admit`` has issued for their key;
without one, the health check and what the register says of a key, so many times a second for each address.
People, with a certificate of this server, have read access to the studies' files and to MLflow; the server itself
writes to MLflow, behind the proxy. Those whose role allows it also reach the one call of the Control API that submits
a signed text, and the logs of their own studies; ``people.py`` has the roles. The Runtime API cannot be reached from
outside; it is for processes of this machine.
What is not listed here is refused, and the access log records the name in each researcher's certificate. It leaves out
what programs ask every few seconds and what changes nothing: ``POLLS`` and ``FOLLOWED``.
``nginx.conf.j2`` is the configuration.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from server.deployment.hospital_certificates import ROLE
from server.deployment.people import ASKING, ROLES
from server.deployment.server_dir import UNKNOWN, ServerDir
from server.errors import ServerMisconfigured
from tasks.machine.disk import private_file, write_whole

REOPEN, RELOAD = signal.SIGUSR1, signal.SIGHUP
"""Make nginx open its logs, or read its files, again (https://nginx.org/en/docs/control.html)."""
FLEET = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
"""Calls of the Fleet API that an admitted hospital makes. Registration is not among them: ``admit`` does that."""
POLLS = ("pull-messages", "send-node-heartbeat")
"""Those of them that a hospital repeats while it waits. What follows an order, such as ``pull-object``, is logged."""
CONTROL = ("start-run",)
"""Calls of the Control API that a researcher makes. The SuperLink knows no names: whoever reached stop-run or
stream-logs could end and read everybody's studies, so a study is stopped by a signed text as well (``stopping.py``)."""
FOLLOWED = (r"study\.json", r"document\.json", r"federated/checkpoint\.json")
"""Files of a study that a researcher's program asks for again and again, as patterns of nginx."""
SEARCHES = (
    "2.0/mlflow/experiments/search",
    "2.0/mlflow/experiments/search-datasets",
    "2.0/mlflow/runs/search",
    "2.0/mlflow/logged-models/search",
    "2.0/mlflow/registered-models/get-latest-versions",
    "3.0/mlflow/traces/search",
    "3.0/mlflow/traces/metrics",
    "3.0/mlflow/traces/batchGetInfos",
    "3.0/mlflow/datasets/search",
    "3.0/mlflow/issues/search",
)
"""Calls of MLflow 3.17 that only read but use POST, under /api/ and /ajax-api/. All other reading uses GET, except
/graphql, whose only mutation echoes a text."""
RUNS = ("/ajax-api/3.0/jobs", "/ajax-api/3.0/mlflow/jobs", "/ajax-api/2.0/mlflow/gateway-proxy")
"""Paths that make MLflow act on behalf of the caller, not all of them with POST."""
ASSISTANT = "/ajax-api/3.0/mlflow/assistant"
"""MLflow 3.17 has an assistant that runs commands on its server for every caller that seems to be on the same machine.
Behind a reverse proxy that is everybody. MLflow has no option to disable it."""
TOO_MANY = 429
"""What is answered to whoever asks more often than the limits allow."""
MOST_BODY = "6m"
"""Flower sends arrays in pieces of 5 MiB."""
AT_ONCE, PIECES = 16, 3
"""So many requests of one hospital may be under way, and so many of them with a large body. Flower's SuperNode sends
two pieces at once, and fetches two."""
ACCESS_LOG, ERROR_LOG = "fence-access.log", "fence.log"
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=False,
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)
"""Nothing is escaped: the text is nginx's, not HTML, and it is filled with this release's own words and the server's
checked settings only."""


def write(server_dir: ServerDir) -> Path:
    """Write nginx's configuration. Returns its path."""
    path = server_dir.path / "fence" / "nginx.conf"
    write_whole(path, configuration(server_dir).encode())
    return path


class Reloader:
    """Call it as often as you like: nginx reads its files again whenever the server's certificate or the list of those
    who were revoked has changed, whoever has changed it and whatever became of them.

    Args:
        ask: makes nginx read its files. Returns whether it could be asked; otherwise it is asked again.
    """

    def __init__(self, server_dir: ServerDir, ask: Callable[[], bool]) -> None:
        self._files, self._ask = (server_dir.revoked, server_dir.certificate), ask
        self._loaded = self._state()

    def __call__(self) -> None:
        state = self._state()
        if state != self._loaded and self._ask():
            self._loaded = state

    def _state(self) -> list[tuple[int, int]]:
        with suppress(OSError):  # one that is missing for a moment is looked at again
            return [(status.st_mtime_ns, status.st_ino) for status in map(os.stat, self._files)]
        return []


def command(server_dir: ServerDir) -> list[str]:
    """The command that starts nginx in the foreground.

    Raises:
        ServerMisconfigured: nginx is not installed.
    """
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise ServerMisconfigured("nginx is not installed, and without it the server would be open to everybody: "
                                  "apt-get install nginx-light")  # fmt: skip
    for log in (ACCESS_LOG, ERROR_LOG):  # nginx itself would make them readable by everybody
        private_file(server_dir.logs / log)
    folder = server_dir.path / "fence"
    return [
        nginx,
        "-p",
        f"{folder}/",
        "-c",
        str(write(server_dir)),
        "-e",
        str(server_dir.logs / ERROR_LOG),
        "-g",
        "daemon off;",
    ]


def configuration(server_dir: ServerDir) -> str:
    """The text of nginx's configuration."""
    s = server_dir.settings
    return _TEMPLATES.get_template("nginx.conf.j2").render(
        server=server_dir,
        folder=server_dir.path / "fence",
        access_log=server_dir.logs / ACCESS_LOG,
        error_log=server_dir.logs / ERROR_LOG,
        polls=POLLS,
        followed=FOLLOWED,
        # As root, nginx would give its work to a user who may not read the server's folder.
        as_root=pwd.getpwuid(0).pw_name if os.geteuid() == 0 else "",
        mlflow=f"127.0.0.1:{s.mlflow_port}",
        hospitals=_listen(s.hospitals_address, s.hospitals_port),
        researchers=_listen(s.researchers_address, s.researchers_port),
        fleet=FLEET,
        hospital=ROLE,
        too_many=TOO_MANY,
        most_body=MOST_BODY,
        at_once=AT_ONCE,
        pieces=PIECES,
        unknown=UNKNOWN,
        control=CONTROL,
        roles=ROLES,
        asking=ASKING,
        searches=SEARCHES,
        blocked=(ASSISTANT, *RUNS),
    )


def _listen(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
