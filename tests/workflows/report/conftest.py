"""A small run of molecular dynamics and its output folder."""

import numpy as np
import pytest
from ase import Atoms

from pet_calc.io.runs.figures import save_figure
from pet_calc.io.runs.provenance import provenance, settings_toml
from pet_calc.workflows.md import MDConfig, run_md
from pet_calc.workflows.md.figures import md_figure
from pet_calc.workflows.water_box import water_box


class Springs:
    """Makes a calculator that ties every atom to its first position."""

    def __new__(cls, atoms):
        from ase.calculators.calculator import Calculator, all_changes

        sites = atoms.get_positions()

        class Tied(Calculator):
            implemented_properties = ["energy", "forces"]  # noqa: RUF012

            def calculate(self, atoms=None, properties=("energy",), changes=all_changes):
                super().calculate(atoms, properties, changes)
                d = self.atoms.positions - sites
                self.results = {"energy": 5.0 * float((d**2).sum()), "forces": -10.0 * d}

        return Tied()


@pytest.fixture(scope="session")
def frames() -> list[Atoms]:
    """Twelve frames of a small box of water, with energies."""
    from ase.calculators.singlepoint import SinglePointCalculator

    rng = np.random.default_rng(0)
    box, found = water_box(8, seed=1, sweeps=20), []
    for k in range(12):
        frame = box.copy()
        frame.positions += rng.normal(scale=0.05, size=frame.positions.shape)
        frame.calc = SinglePointCalculator(frame, energy=-10.0 + 0.1 * k)
        found.append(frame)
    return found


@pytest.fixture(scope="session")
def md_folder(tmp_path_factory):
    """What ``pet-calc md`` leaves of a short run."""
    folder = tmp_path_factory.mktemp("runs") / "a <b> & c"
    atoms = water_box(8, seed=1, sweeps=20)
    atoms.calc = Springs(atoms)
    config = MDConfig(steps=60, frame_interval=4, log_interval=2)
    result = run_md(atoms, config, folder)
    save_figure(md_figure(result.log, len(atoms)), folder / "md.png")
    settings = {"ensemble": "nvt-langevin", "timestep": 0.5, "interval": 4, "steps": 60}
    (folder / "md.toml").write_text(
        settings_toml("settings", settings, provenance(atoms.calc, seed=0)), encoding="utf-8"
    )
    return folder
