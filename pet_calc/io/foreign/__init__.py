"""Models that other packages wrote, and where to download them."""
