"""The command ``consilium-server``, for the coordinator."""
