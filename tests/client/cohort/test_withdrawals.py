"""The withdrawal list: an overlooked line would be a patient trained on against their will."""

from pathlib import Path
from typing import Any

import pytest

from client.cohort.withdrawals import withdrawn
from client.errors import SiteMisconfigured
from client.site import SiteSettings


def _site(withdrawals: Path | None) -> SiteSettings:
    source: dict[str, Any] = {"kind": "folder", "task": "breast_ultrasound", "issuer": "a", "path": "d", "labels": "l"}
    policy = {"tasks": ["breast_ultrasound"]}
    values = {"name": "alder", "simulated": True, "sources": [source], "policy": policy, "withdrawals": withdrawals}
    return SiteSettings.model_validate(values)


def test_one_patient_a_line(tmp_path: Path) -> None:
    path = tmp_path / "withdrawals.txt"
    path.write_bytes(b"\xef\xbb\xbf0012\r\n  A B^7 \r\n\r\n0012\n")
    assert withdrawn(_site(path)) == {"0012", "A B^7"}
    assert withdrawn(_site(None)) == frozenset()
    path.write_text("")
    assert withdrawn(_site(path)) == frozenset()


def test_a_list_that_may_be_misread_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "withdrawals.txt"
    with pytest.raises(SiteMisconfigured, match="nobody is trained on while it is missing"):
        withdrawn(_site(path))
    path.write_text("0012\n0013,2026-01-01\nfine\n0014;x\n")
    with pytest.raises(SiteMisconfigured, match=r"line\(s\) 2, 4 "):
        withdrawn(_site(path))
    path.write_bytes("Zoë".encode("latin-1"))
    with pytest.raises(SiteMisconfigured, match="cannot read"):
        withdrawn(_site(path))
