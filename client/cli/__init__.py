"""The command ``consilium-site``, for hospital staff."""
