"""Structures: `ase.Atoms`, extended XYZ, LAMMPS dumps."""
