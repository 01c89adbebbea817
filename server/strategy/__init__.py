"""How updates become a new model: one file a strategy."""
