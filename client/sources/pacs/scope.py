"""Which series of an archive belong to a source's scope.

Tested in ``tests/client/sources/pacs/test_dicomweb.py``.
"""

from __future__ import annotations

from collections import Counter

from client.sources.settings import Scope


def in_scope(scope: Scope, modality: str, body_part: str, left_out: Counter[str]) -> bool:
    """Whether to include a series; those excluded for their body part are counted.

    Archives are free to ignore a search key that they do not support (PS3.4 C.2.2.1.3, PS3.18 8.3.4), so what they
    return is compared once more. Another modality of the same examination is no loss and is not counted.
    """
    if modality.upper() not in {name.upper() for name in scope.modalities}:
        return False
    if not scope.body_parts or body_part.upper() in {name.upper() for name in scope.body_parts}:
        return True
    if not body_part and scope.body_part_unknown == "keep":
        return True
    left_out["SERIES_OF_OTHER_BODY_PART" if body_part else "SERIES_OF_UNKNOWN_BODY_PART"] += 1
    return False
