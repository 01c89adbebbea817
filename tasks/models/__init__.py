"""Networks that any task can use; ``registry.py`` finds them by name."""
