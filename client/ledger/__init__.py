"""Ledger and audit log: what was spent and what left, in chained rows that vouch for each other."""
