"""A hospital before its first order, real or simulated: provision it, and check that it is ready."""
