"""What ``consilium`` says where it cannot go on, in one form for all its commands."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from conf.load import ConfigError
from tasks import faults


def tell(error: Exception, console: Console) -> None:
    """Print what is wrong with the configuration, what the system has refused, or an error that names itself."""
    match error:
        case ConfigError():
            kind, told = "Invalid configuration", f"\n{error}"
        case OSError():
            kind, told = "File error", f" {faults.of_system(error)}."
        case _:
            kind, told = type(error).__name__, f" {error}"
    console.print(f"[bold red]{kind}:[/]{escape(told)}", soft_wrap=True)
