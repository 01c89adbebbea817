"""The coordinator's two commands as they are installed: ``--version``, and what is missing, before the heavy imports.

A hospital's installation has neither MLflow nor Jinja; there these commands say what to install instead of failing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import util

from tasks import faults
from tasks.machine import version

_EXTRA = ("jinja2", "mlflow")


def consilium() -> None:
    """Entry point of ``consilium``."""
    _begin("consilium", _consilium)


def consilium_server() -> None:
    """Entry point of ``consilium-server``."""
    _begin("consilium-server", _consilium_server)


def _begin(program: str, main: Callable[[], None]) -> None:
    if sys.argv[1:] == ["--version"]:
        print(version.line(program))
        return
    missing = [name for name in _EXTRA if util.find_spec(name) is None]
    if missing:
        print(
            f"{program} is for the coordinator and needs {' and '.join(missing)}, which this installation does not "
            "have. Run: pip install 'consilium-fl[server]' -c constraints.txt",
            file=sys.stderr,
        )
        sys.exit(2)
    with faults.told(program):
        main()


def _consilium() -> None:
    from server.__main__ import main

    main()


def _consilium_server() -> None:
    from server.cli.main import main

    main()
