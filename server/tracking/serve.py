"""``mlflow server`` in one process: MLflow's own command starts uvicorn and waits beside it, with 190 MB of memory.
Here the command becomes uvicorn. Arguments are those of ``mlflow server``.

Tested in ``tests/e2e/mlflow/test_serve.py``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Never

from mlflow import server
from mlflow.cli import cli


def become(command: Sequence[str], extra_env: Mapping[str, str], **_: object) -> Never:
    """Run a command in place of this process."""
    os.execve(command[0], list(command), os.environ | dict(extra_env))


def main() -> None:
    """Serve MLflow with the arguments of the command line."""
    vars(server)["_exec_cmd"] = become  # MLflow 3.17; without that name the test fails
    cli(["server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
