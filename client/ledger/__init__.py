"""Ledger and journal: what was spent and what left, in chained rows that vouch for each other."""
