"""Model folders: configuration, weights, uncertainty, training domain, recorded results."""
