"""Properties of crystals from trained models."""
