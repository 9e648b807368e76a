"""Numerical kernels: each has a reference implementation that defines it."""
