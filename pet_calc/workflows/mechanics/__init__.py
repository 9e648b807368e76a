"""Equation of state, elastic constants, minimum-energy paths."""
