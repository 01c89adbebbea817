"""A hospital before its first order: founded, real or simulated, and rung by rung made ready."""
