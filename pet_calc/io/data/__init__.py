"""Data sets: labeled frames and tables of crystals."""
