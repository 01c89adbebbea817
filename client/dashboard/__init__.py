"""The hospital on one page, for the steward: what waits, what ran, what is left, what left, and how it does."""
