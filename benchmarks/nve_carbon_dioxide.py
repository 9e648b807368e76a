"""Is energy conserved where views hand over to each other? CO2 at 1000 K, bending through 180°.

    python benchmarks/nve_carbon_dioxide.py --out benchmarks/results/nve_carbon_dioxide.csv

A linear molecule has no frames, a bent one has; heat takes it through the hand-over many times in a
picosecond. Two potentials are trained on the same frames of a valence force field of CO2, one plain
and one in local frames (layerwise), and run at constant energy in float64 from the same starts,
with a step of 0.5 fs and of half of it. Written for each: force error on frames that took no part
in training, standard deviation of the total energy about its trend, drift with its standard error
over the starts, and by how much the fluctuation falls as the step is halved (4 for velocity Verlet
on a smooth potential energy).
"""

from __future__ import annotations

import argparse
import csv
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from pet_calc import PETCalculator, __version__
from pet_calc.training import TrainConfig, train
from pet_calc.training.potentials.loop import load_data

KELVIN = 1000.0


class ValenceForceField(Calculator):
    """Morse bonds and a harmonic bond angle with about the frequencies of CO2.

    D = 7.5 eV, 1600 N/m and 1.16 Å for the bonds, 5 eV/rad² for the angle (in cos, so that 180° is
    smooth).
    """

    implemented_properties = ("energy", "forces")  # type: ignore[assignment]
    depth, stiffness, length, bending = 7.5, 100.0, 1.16, 5.0

    def calculate(
        self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes
    ) -> None:
        """Energy and forces."""
        super().calculate(atoms, properties, system_changes)
        x = torch.from_numpy(self.atoms.positions.copy()).requires_grad_()
        a, b = x[1] - x[0], x[2] - x[0]
        r = torch.stack([a.norm(), b.norm()])
        decay = (self.stiffness / (2 * self.depth)) ** 0.5
        bonds = self.depth * (1 - torch.exp(-decay * (r - self.length))).square().sum()
        energy = bonds + self.bending * (1 + (a @ b) / (r[0] * r[1]))
        (gradient,) = torch.autograd.grad(energy, x)
        self.results = {"energy": energy.item(), "forces": -gradient.numpy()}


def molecule(seed: int) -> Atoms:
    """A molecule with velocities at 1000 K and no net momentum."""
    atoms = Atoms("CO2", [[0, 0, 0], [1.16, 0, 0], [-1.16, 0, 0]])
    # equipartition leaves half of the kinetic energy of the linear start to the vibrations
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * KELVIN, rng=np.random.default_rng(seed))
    Stationary(atoms)
    return atoms


def frames(n: int, seed: int) -> list[Atoms]:
    """Frames of a Langevin run, 20 fs apart, turned at random, with energies and forces."""
    rng = np.random.default_rng(seed)
    atoms = molecule(seed)
    atoms.calc = ValenceForceField()
    run = Langevin(
        atoms, 0.5 * units.fs, temperature_K=1.3 * KELVIN, friction=0.02 / units.fs, rng=rng
    )
    found = []
    for _ in range(n):
        run.run(40)
        frame = Atoms(atoms.symbols, atoms.positions - atoms.positions[0])
        frame.rotate(rng.uniform(0, 360), rng.normal(size=3))
        frame.calc = ValenceForceField()
        frame.get_forces()
        found.append(frame)
    return found


def config(mode: str, steps: int) -> TrainConfig:
    """The training of one potential; both learn from the same frames."""
    return TrainConfig.from_dict({
        "name": f"co2-{mode}",
        "seed": 1,
        "augment": mode == "plain",
        "validation_interval": 200,
        "model": {
            "elements": [6, 8], "cutoff": 3.5, "cutoff_width": 1.0, "d_pet": 32, "d_node": 64,
            "d_head": 32, "d_feedforward": 64, "num_heads": 4, "num_attention_layers": 1,
            "num_gnn_layers": 2, "input_encoding": "radial", "num_radial": 32,
            "ecse": "layerwise" if mode == "layerwise" else "none",
            # gentle pruning, which makes smoother forces (docs/symmetry.md)
            "frames": {
                "num_prunings": 1, "pruning_threshold": 0.6, "pruning_width": 0.8, "taper": 0.4,
            },
        },
        "data": {
            "train": ["train.extxyz"], "test": ["test.extxyz"], "validation_frames": 20,
        },
        "optimizer": {"name": "soap", "precondition_interval": 5, "ema_decay": 0.99},
        "stages": [{
            "steps": steps, "batch_size": 10, "learning_rate": 4e-3,
            "final_learning_rate": 5e-5, "warmup_steps": 20, "frames": "all",
            "loss": {"energy": 3.0, "forces": 1.0},
        }],
    })  # fmt: skip


def energies(
    calculator: Any, seed: int, timestep: float, picoseconds: float
) -> NDArray[np.float64]:
    """Total energy at every step, in eV."""
    atoms = molecule(seed)
    atoms.calc = calculator
    found: list[float] = []
    run = VelocityVerlet(atoms, timestep * units.fs)
    run.attach(lambda: found.append(atoms.get_total_energy()), interval=1)
    run.run(round(1000 * picoseconds / timestep))
    return np.array(found)


def conservation(
    calculator: Any, timestep: float, picoseconds: float, starts: int
) -> tuple[float, float, float]:
    """Fluctuation about the trend in meV, and drift with its standard error in meV/ps."""
    noise, slopes = [], []
    for seed in range(starts):
        e = 1e3 * energies(calculator, 100 + seed, timestep, picoseconds)
        time = 1e-3 * timestep * np.arange(len(e))
        trend = np.polynomial.Polynomial.fit(time, e, 1)
        noise.append(float((e - trend(time)).std()))
        slopes.append(float(trend.convert().coef[1]))
    return (
        float(np.mean(noise)), float(np.mean(slopes)), float(np.std(slopes, ddof=1) / starts**0.5)
    )  # fmt: skip


def main() -> None:
    """Train, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    parser.add_argument("--picoseconds", type=float, default=2.0)
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder / "train.extxyz", frames(220, 1))
        write(folder / "test.extxyz", frames(100, 2))
        calculators: dict[str, tuple[Any, float]] = {
            "the force field itself": (ValenceForceField(), 0)
        }
        for mode in ("plain", "layerwise"):
            plan = config(mode, options.steps)
            found = train(plan, folder / mode, load_data(plan, folder))
            assert found is not None
            error = found["test"].forces.rmse
            calculators[mode] = (PETCalculator(folder / mode / "model", dtype="float64"), error)
        for name, (calculator, error) in calculators.items():
            noise, slope, slope_error = conservation(
                calculator, 0.5, options.picoseconds, options.starts
            )
            half, _, _ = conservation(calculator, 0.25, options.picoseconds / 2, options.starts)
            rows.append({
                "potential": name,
                "force_rmse_meV_A": f"{error:.2f}",
                "timestep_fs": 0.5,
                "picoseconds": options.picoseconds,
                "starts": options.starts,
                "fluctuation_meV": f"{noise:.4f}",
                "drift_meV_per_ps": f"{slope:.4f}",
                "drift_standard_error": f"{slope_error:.4f}",
                "fluctuation_ratio_on_halving": f"{noise / half:.2f}",
                "pet_calc": __version__,
                "torch": torch.__version__,
                "machine": platform.machine(),
            })  # fmt: skip
            print(rows[-1], flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
