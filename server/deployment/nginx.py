"""The fence: nginx before the SuperLink, which itself asks nobody who reaches its Control API for a name.

Two doors. Hospitals reach the Fleet API and the health check. Researchers, with a certificate of ours, reach five calls
of the Control API, the studies' files, and MLflow, both for reading: the server itself writes to MLflow, behind the
fence. Nobody reaches the Runtime API; it is for processes of this machine. What is not named here is refused, and the
access log has the name in each researcher's certificate.
"""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from server.deployment.server_dir import ServerDir
from server.errors import ServerMisconfigured
from tasks.machine.disk import write_whole

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
"""Calls of the Fleet API that an admitted hospital makes. Registering is not among them: ``admit`` does that."""
CONTROL = ("start-run", "stop-run", "list-runs", "list-nodes", "stream-logs")
"""Calls of the Control API that a researcher makes."""
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
"""Calls of MLflow 3.17 that read and are made with POST, under /api/ and /ajax-api/. Everything else that reads is made
with GET, but for /graphql, whose only mutation echoes a text."""
RUNS = ("/ajax-api/3.0/jobs", "/ajax-api/3.0/mlflow/jobs", "/ajax-api/2.0/mlflow/gateway-proxy")
"""Paths that make MLflow do something for whoever asks, not all of them with POST."""
ASSISTANT = "/ajax-api/3.0/mlflow/assistant"
"""MLflow 3.17 has an assistant that runs commands on its server for whoever seems to be on that machine, which behind a
fence is everybody. No option of MLflow's switches it off."""
_LARGEST_BODY = "16m"
"""Flower sends arrays in pieces of 5 MB."""


def write(home: ServerDir) -> Path:
    """Write nginx's configuration. Returns its path."""
    path = home.path / "fence" / "nginx.conf"
    write_whole(path, configuration(home).encode())
    return path


def command(home: ServerDir) -> list[str]:
    """What starts the fence in the foreground.

    Raises:
        ServerMisconfigured: nginx is not installed.
    """
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise ServerMisconfigured("nginx is not installed, and without the fence the server is open to everybody: "
                                  "apt-get install nginx-light")  # fmt: skip
    folder = home.path / "fence"
    return [nginx, "-p", f"{folder}/", "-c", str(write(home)), "-e", str(home.logs / "fence.log"), "-g", "daemon off;"]


def configuration(home: ServerDir) -> str:
    """The text of nginx's configuration."""
    return f"""# Written by consilium-server at every start; changes are lost.
{_program(home)}
http {{
{_common(home)}
{_doors(home)}
}}
"""


def _program(home: ServerDir) -> str:
    folder = home.path / "fence"
    # As root, nginx would hand its work to a user who may not read the server's folder.
    user = f"user {pwd.getpwuid(0).pw_name};\n" if os.geteuid() == 0 else ""
    return f"""{user}worker_processes 2;
pid {folder}/nginx.pid;
error_log {home.logs}/fence.log warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 2048; }}"""


def _common(home: ServerDir) -> str:
    folder = home.path / "fence"
    return f"""  log_format names '$remote_addr "$ssl_client_s_dn" [$time_iso8601] "$request" $status $body_bytes_sent';
  access_log {home.logs}/fence-access.log names;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server_tokens off;
  client_max_body_size {_LARGEST_BODY};
  client_body_timeout 60s;
  client_header_timeout 20s;
  large_client_header_buffers 4 16k;
  ssl_certificate {home.certificate};
  ssl_certificate_key {home.certificate_key};
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache shared:tls:4m;
  proxy_ssl_trusted_certificate {home.authority};
  proxy_ssl_verify on;
  proxy_ssl_name localhost;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_connect_timeout 5s;
  proxy_read_timeout 120s;
  limit_conn_zone $binary_remote_addr zone=peers:4m;
  upstream superlink {{ server {home.superlink}; keepalive 32; }}
  upstream mlflow {{ server 127.0.0.1:{home.settings.mlflow_port}; keepalive 8; }}"""


def _doors(home: ServerDir) -> str:
    s = home.settings
    return f"""
  # Hospitals.
  server {{
    listen {_listen(s.hospitals_address, s.hospitals_port)} ssl;
    limit_conn peers 64;
    {_PLAIN_PATHS}
    location = /health {{ {_SUPERLINK} }}
    location ~ ^/v1/fleet/({"|".join(FLEET)})$ {{ {_SUPERLINK} }}
    location / {{ return 404; }}
  }}

  # Researchers: only with a certificate of ours that was not revoked.
  server {{
    listen {_listen(s.researchers_address, s.researchers_port)} ssl;
    ssl_client_certificate {home.authority};
    ssl_crl {home.revoked};
    ssl_verify_client on;
    {_PLAIN_PATHS}
    location = /health {{ {_SUPERLINK} }}
    location ~ ^/v1/control/({"|".join(CONTROL)})$ {{ proxy_buffering off; {_SUPERLINK} }}
    location /v1/ {{ return 404; }}
    location /studies/ {{ alias {home.path}/studies/; {_READ_ONLY} }}
    location /runs/ {{ alias {home.runs}/; {_READ_ONLY} }}
{_nowhere()}
    location ~ ^/(api|ajax-api)/({_SEARCHES})$ {{ limit_except GET POST {{ deny all; }} {_mlflow(home)} }}
    location = /graphql {{ limit_except GET POST {{ deny all; }} {_mlflow(home)} }}
    location / {{ limit_except GET {{ deny all; }} {_mlflow(home)} }}
  }}"""


def _mlflow(home: ServerDir) -> str:
    return f"proxy_set_header Host 127.0.0.1:{home.settings.mlflow_port}; proxy_pass http://mlflow;"


def _nowhere() -> str:
    return "\n".join(f"    location ^~ {path} {{ return 404; }}" for path in (ASSISTANT, *RUNS))


_SEARCHES = "|".join(SEARCHES).replace(".", "[.]")
_PLAIN_PATHS = r"""if ($request_uri ~* "(\.\.|/\./|//|%2e|%2f|%5c|%00|#)") { return 404; }"""
"""nginx judges a path without its dots and hands on the one that came: nobody who means well sends such a path."""
_SUPERLINK = "proxy_pass https://superlink;"
_READ_ONLY = "limit_except GET { deny all; } default_type application/octet-stream; add_header Cache-Control no-store;"


def _listen(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
