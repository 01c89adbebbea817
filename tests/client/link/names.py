"""What a program does without one of the private names that a file of ours uses."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType


def started_without(seam: ModuleType, program: str, at_least: int) -> None:
    """Fail if a program starts although one of the names is gone that a file imports from Flower.

    Args:
        seam: the only file between them.
        program: a module that imports it.
        at_least: so many names are looked for.
    """
    names = [
        (node.module, alias.name)
        for node in ast.parse(Path(str(seam.__file__)).read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("flwr.")
        for alias in node.names
    ]
    text = f"""
import importlib, os, sys
import {program}
for module, name in {names!r}:
    if os.fork() == 0:
        delattr(importlib.import_module(module), name)
        del sys.modules[{seam.__name__!r}], sys.modules[{program!r}]
        try:
            import {program}
        except ImportError:
            os._exit(0)
        print("started without", module, name, flush=True)
        os._exit(1)
    _, status = os.wait()
    assert status == 0
print("never")
"""
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)
    assert ended.stdout.split() == ["never"], ended.stdout + ended.stderr
    assert len(names) >= at_least
