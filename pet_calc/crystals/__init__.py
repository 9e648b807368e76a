"""Crystals as products: property models, generators, and their training."""
