"""Generators of crystals beside random search: measures, relaxation, S.U.N. on a convex hull.

Research code, no part of the package. Match rates need pymatgen and the validity of compositions
SMACT: ``pip install "pymatgen>=2026.10" "smact>=4.0"`` (900 MB with what they bring).
`benchmarks/crystal_generation.py` runs the comparison.
"""
