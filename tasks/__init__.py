"""The kernel: what a task is, what crosses the wire, how figures are computed. Both sides import it."""
