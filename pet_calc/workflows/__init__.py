"""What users run with any ASE calculator: molecular dynamics, its guards, observables and figures.

Each workflow is a function of an ``ase.Atoms`` that carries a calculator and of a frozen
configuration; it writes its files into one folder and returns a frozen result. Units are ASE's
(Å, eV, amu); times at the interface are in fs.
"""
