"""Hospitals with real files, for tests of the hospital's side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.setup.provisioning import provision, write_example
from client.site import SiteSettings, load


@pytest.fixture
def provision_hospital(tmp_path: Path) -> Callable[..., SiteSettings]:
    """Provisions a hospital in ``tmp_path``: the example with some settings changed, key, ledger and audit log."""

    def provision_it(**changes: Any) -> SiteSettings:
        path = tmp_path / "site.yaml"
        write_example(path, "st-anne")
        values = yaml.safe_load(path.read_text("utf-8"))
        values["policy"] |= changes.pop("policy", {})
        path.write_text(yaml.safe_dump(values | changes), "utf-8")
        settings = load(path)
        provision(settings)
        return settings

    return provision_it
