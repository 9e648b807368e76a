"""A run for another process to kill: ``python killed_run.py FOLDER`` starts or continues it."""

import sys

from ase.build import bulk
from ase.calculators.emt import EMT

from pet_calc.workflows.md import MDConfig, run_md

KILLED = MDConfig(
    ensemble="npt-mtk-iso",
    timestep=2.0,
    tau=50.0,
    pressure=0.0,
    pressure_tau=300.0,
    steps=400,
    frame_interval=2,
    log_interval=3,
    checkpoint_interval=20,
    swap_interval=10,
    seed=11,
)


def run(folder):
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Au"
    atoms.set_cell(atoms.cell * 1.05, scale_atoms=True)
    atoms.calc = EMT()
    return run_md(atoms, KILLED, folder, resume=True)


if __name__ == "__main__":
    run(sys.argv[1])
