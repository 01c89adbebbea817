"""A message as it travels when its arrays are large: tests that spoil single arrays begin with this form."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from safetensors.numpy import load


def spread(records: RecordDict) -> RecordDict:
    """The same message with its arrays in a record of their own, however small they are."""
    head = dict(records.config_records["head"])
    packed = head.pop("arrays", None)
    if not isinstance(packed, bytes):
        return records
    arrays = ArrayRecord({name: Array(value) for name, value in load(packed).items()})
    return RecordDict({"head": ConfigRecord(head), "arrays": arrays})
