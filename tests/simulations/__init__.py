"""How often intervals hold the truth and verdicts are right, by simulation: ``python -m tests.simulations``."""
