"""The kernel, which both sides import: clinical tasks, models, metrics, and the protocol between both sides."""
