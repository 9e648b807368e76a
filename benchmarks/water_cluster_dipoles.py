"""Dipoles and polarizabilities of small water clusters from density-functional theory.

``python benchmarks/water_cluster_dipoles.py benchmarks/data/water_clusters.extxyz.xz`` (with PySCF,
``pip install pyscf``) makes molecules and pairs: rigid ones in molecular dynamics with TIP3P at
300 K, whose atoms are then displaced at random. PBE0 with def2-SVPD. The polarizability is the
central difference of the dipole in a field of ±0.003 a.u. along each axis. The last
`--derivatives` clusters also have their atomic polar tensors, central differences with
displacements of ±0.01 Å.

Units: dipole e Å (key ``dipole``, which ASE reads as a result), polarizability Å³
(``info["polarizability"]``, xx, yy, zz, yz, xz, xy), atomic polar tensors e (``arrays["apt"]``,
row-major, ∂μ_b / ∂r_a at 3 a + b). The dipole points from negative to positive charge.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyscf
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.tip3p import TIP3P, angleHOH, rOH
from ase.constraints import FixBondLengths
from ase.io import write
from ase.md.langevin import Langevin

FIELD, STEP = 0.003, 0.01


def clusters(n_molecules: int, n: int, random: np.random.Generator) -> list[Atoms]:
    """`n` clusters of so many molecules, 0.1 ps apart."""
    single = molecule("H2O")
    single.set_angle(1, 0, 2, angleHOH)
    single.set_distance(0, 1, rOH, fix=0)
    single.set_distance(0, 2, rOH, fix=0)
    system = Atoms()
    for k in range(n_molecules):
        one = single.copy()
        one.rotate(random.uniform(0, 360), random.standard_normal(3))
        one.translate(3.0 * np.array([k % 2, k // 2, 0.0]) - one.get_center_of_mass())
        system += one
    system.constraints = FixBondLengths(
        [(3 * m + i, 3 * m + (i + 1) % 3) for m in range(n_molecules) for i in range(3)]
    )
    system.calc = TIP3P(rc=20.0)
    dynamics = Langevin(
        system, units.fs, temperature_K=300, friction=0.05 / units.fs,
        rng=np.random.RandomState(int(random.integers(2**31))),
    )  # fmt: skip
    found = []
    for _ in range(n):
        dynamics.run(100)
        frame = Atoms(system.numbers, system.positions - system.get_center_of_mass())
        frame.positions += 0.05 * random.standard_normal(frame.positions.shape)
        found.append(frame)
    return found


class Density:
    """Self-consistent PBE0 of one cluster, whose density starts the next one."""

    def __init__(self) -> None:
        self.start = None

    def dipole(self, atoms: Atoms, field: np.ndarray | None = None) -> np.ndarray:
        """In e Å, in a homogeneous field in atomic units."""
        mol = pyscf.M(
            atom=list(zip(atoms.symbols, atoms.positions, strict=True)),
            basis="def2-svpd",
            verbose=0,
        )
        mean = mol.RKS(xc="pbe0").density_fit()
        mean.grids.level = 2
        mean.conv_tol = 1e-10
        if field is not None:
            with mol.with_common_orig((0, 0, 0)):
                moments = mol.intor("int1e_r", comp=3)
            core = mean.get_hcore() + np.einsum("x,xij->ij", field, moments)
            mean.get_hcore = lambda *_: core
        mean.kernel(dm0=self.start)
        if not mean.converged:
            raise RuntimeError(f"no self-consistency for {atoms}")
        self.start = mean.make_rdm1()
        return mean.dip_moment(unit="AU", verbose=0) * units.Bohr


def polarizability(atoms: Atoms, density: Density) -> np.ndarray:
    """(3, 3) in Å³."""
    rows = []
    for axis in np.eye(3):
        up, down = (density.dipole(atoms, s * FIELD * axis) for s in (1, -1))
        rows.append((up - down) / (2 * FIELD) / units.Bohr)
    found = np.array(rows) * units.Bohr**3
    return 0.5 * (found + found.T)


def polar_tensors(atoms: Atoms, density: Density) -> np.ndarray:
    """(n_atoms, 3, 3) in e: [i, a, b] is ∂μ_b / ∂r_ia."""
    found = np.empty((len(atoms), 3, 3))
    for i in range(len(atoms)):
        for a in range(3):
            ends = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[i, a] += sign * STEP
                ends.append(density.dipole(moved))
            found[i, a] = (ends[0] - ends[1]) / (2 * STEP)
    return found


def main() -> None:
    """Make the clusters and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[80, 50], help="clusters of one, two ... molecules"
    )
    parser.add_argument("--derivatives", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    frames = [a for k, n in enumerate(options.sizes) for a in clusters(k + 1, n, random)]
    frames = [frames[k] for k in random.permutation(len(frames))]
    for k, atoms in enumerate(frames):
        density = Density()
        atoms.info["dipole"] = density.dipole(atoms).round(7)
        alpha = polarizability(atoms, density)
        atoms.info["polarizability"] = alpha[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]].round(6)
        if k >= len(frames) - options.derivatives:
            atoms.arrays["apt"] = polar_tensors(atoms, density).reshape(-1, 9).round(6)
        atoms.positions = atoms.positions.round(8)
        print(f"\r{k + 1}/{len(frames)}", end="", flush=True)
    write(options.out, frames, format="extxyz")
    print()


if __name__ == "__main__":
    main()
