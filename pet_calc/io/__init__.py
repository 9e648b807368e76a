"""Files and other packages' objects: ASE structures, weights, data sets."""
