"""Patients who have withdrawn: a text file with one PatientID per line, applied whenever a source is listed."""

from __future__ import annotations

import re

from client.errors import SiteMisconfigured
from client.site import SiteSettings
from client.sources.text_file import text_of

_MORE_THAN_A_NAME = re.compile(r"[,;\t\\]")


def withdrawn(site: SiteSettings) -> frozenset[str]:
    """PatientIDs on the hospital's list, empty when ``withdrawals`` is not set.

    A number on the list counts for every issuer: to leave out a namesake harms nobody, to train on the other does.

    Raises:
        SiteMisconfigured: the file cannot be read, or has lines that are more than a PatientID, by line number.
    """
    if site.withdrawals is None:
        return frozenset()
    try:
        lines = text_of(site.withdrawals).splitlines()
    except SiteMisconfigured as error:
        raise SiteMisconfigured(
            f"the withdrawal list cannot be used: {error}; nobody is trained on while it is missing "
            "(if nobody has withdrawn, create an empty file)"
        ) from error
    if odd := [number for number, line in enumerate(lines, start=1) if _MORE_THAN_A_NAME.search(line)]:
        shown = ", ".join(map(str, odd[:10]))
        raise SiteMisconfigured(
            f"{site.withdrawals}: line(s) {shown} have a comma, semicolon, tab or backslash; write one PatientID per "
            "line and nothing else, or a withdrawal could be missed"
        )
    return frozenset(name for line in lines if (name := line.strip()))
