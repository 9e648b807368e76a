"""Training of potentials on first-principles data."""
