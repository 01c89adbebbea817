"""The command ``consilium-site``, for the people of one hospital."""
