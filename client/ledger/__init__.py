"""Ledger and audit log: what was spent and what left, in chained rows, each file a witness of the other."""
