r"""Labels that are made before a training: energies on one zero, and bounds around minima.

    python benchmarks/prepare_labels.py offsets general/mptrj.extxyz.xz --name mptrj \
        --offsets energy_offsets.json --out prepared/mptrj.extxyz.xz
    python benchmarks/prepare_labels.py fit general/mptrj.extxyz.xz --name mptrj --hubbard \
        --model pet-general-v5 --offsets energy_offsets.json
    python benchmarks/prepare_labels.py rattle crystals/mp_train.npz.xz --frames ::5 \
        --out prepared/rattled.extxyz.xz

**offsets**: data sets of one level of theory may differ in what their energies count from: total
energies of pseudo-atoms, or formation energies. Such a difference is a constant for each element.
Materials Project settings add another: oxides and fluorides of some transition metals are computed
with PBE+U and all else with PBE, which shifts the energy by a constant for each such atom [Jain et
al., Phys. Rev. B 84, 045115 (2011)]. ``fit`` finds both by least squares of what the labels have
beyond a potential, and ``offsets`` takes them off.

**rattle**: a relaxed crystal is a minimum of the energy, so that the energy rises along the way to
a disturbed copy. With a cell h (rows), positions r, a symmetric strain ε and displacements u, the
way is

.. math:: h(t) = h (1 + t ε), \quad r(t) = r (1 + t ε) + t u, \quad 0 \le t \le 1

and at its end the energy rises by

.. math:: \frac{dE}{dt} = - \sum_i F_i \cdot d_i + V \sigma : L, \quad
          L = ε (1 + ε)^{-1}, \quad d = u (1 - L)

Of a harmonic crystal this is twice the energy of the disturbance. The label ``least_rise`` is no
more than what any sound crystal has,

.. math:: \frac{dE}{dt} \ge 9 K V_0 |δ| \min(|δ|, δ_c) + k \sum_i |u_i|^2, \quad δ = tr(ε) / 3

with a bulk modulus K and a force constant k that are lower bounds, and δ_c = 0.03 from which on the
tension of an expanded crystal need not grow. From caesium to diamond both follow the volume v of an
atom as electrostatic energies per volume (e² / a⁴) and per area (e² / a³) do,

.. math:: K = K_{20} (20 Å^3 / v)^{4/3}, \quad k = k_{20} \, 20 Å^3 / v
"""

import argparse
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, chemical_symbols

from pet_calc import pretrained
from pet_calc.errors import DatasetError
from pet_calc.geometry.cell import voigt_from_matrix
from pet_calc.io.data.datasets import read_frames
from pet_calc.training.potentials.data import energy_errors, prepare
from pet_calc.training.potentials.data_config import DataSet

#: Metals that Materials Project settings treat with +U, beside one of `ANIONS`.
METALS = (23, 24, 25, 26, 27, 28, 42, 74)
ANIONS = (8, 9)
#: Volume of an atom in Å³ that the bounds are given for.
VOLUME = 20.0
#: Linear strain from which on the least tension grows no more.
LINEAR = 0.03


def columns(numbers, elements, *, hubbard):
    """Counts (n_elements + n_metals,) that an offset of the energy is linear in.

    Parameters
    ----------
    numbers : array
        Atomic numbers of a structure.
    elements : sequence of int
    hubbard : bool
        Count the `METALS` treated with +U, if the structure holds one of `ANIONS`.
    """
    counts = np.bincount(numbers, minlength=119).astype(float)
    plus_u = hubbard and counts[list(ANIONS)].any()
    return np.concatenate([counts[list(elements)], counts[list(METALS)] * plus_u])


def fit(model, frames, *, hubbard):
    """Offsets of the frames' energies beyond a model: eV per atom of elements and of +U metals.

    By least squares, of least norm.
    """
    prepared = [prepare(f, model.cutoff) for f in frames if f.energy is not None]
    elements = model.atomic_numbers
    counts = np.array([columns(b.system.numbers.numpy(), elements, hubbard=hubbard)
                       for b in prepared])  # fmt: skip
    solution = np.linalg.lstsq(counts, energy_errors(model, prepared).numpy(), rcond=1e-8)[0]
    parts = {"elements": (elements, solution)}
    if hubbard:
        parts["hubbard"] = (METALS, solution[len(elements) :])
    return {
        kind: {chemical_symbols[z]: float(x) for z, x in zip(who, values, strict=False)}
        for kind, (who, values) in parts.items()
    }


def without_offsets(frame, offsets):
    """The structure with its labels, and an energy without the offsets that `fit` gave.

    Raises
    ------
    DatasetError
        For an element without an offset.
    """
    elements = [atomic_numbers[s] for s in offsets["elements"]]
    if missing := sorted(set(frame.atoms.get_chemical_symbols()) - set(offsets["elements"])):
        raise DatasetError(f"there is no offset of {missing}; fit it on structures that hold them")
    plus_u = offsets.get("hubbard", {})
    counts = columns(frame.atoms.numbers, elements, hubbard=bool(plus_u))
    metals = [plus_u.get(chemical_symbols[z], 0.0) for z in METALS]
    offset = float(counts @ [*offsets["elements"].values(), *metals])
    atoms = frame.atoms.copy()
    labels = {"forces": frame.forces, "stress": frame.stress}
    labels = {k: v for k, v in labels.items() if v is not None}
    if frame.energy is not None:
        labels["energy"] = frame.energy - offset
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


@dataclass(frozen=True)
class Disturbance:
    """How relaxed structures are disturbed, and how fast their energy rises at least.

    Attributes
    ----------
    compression, expansion : float
        The linear strain δ is drawn uniformly from -compression to expansion.
    shear : float
        Standard deviation of the components of the rest of the strain.
    displacement : float
        Standard deviation of the components of the displacements, in Å.
    bulk_modulus : float
        K of a crystal with 20 Å³ per atom, in GPa.
    force_constant : float
        k of such a crystal, in eV/Å².
    """

    compression: float = 0.06
    expansion: float = 0.1
    shear: float = 0.02
    displacement: float = 0.08
    bulk_modulus: float = 10.0
    force_constant: float = 1.0

    def __post_init__(self):
        for name, value in asdict(self).items():
            if not value >= 0:
                raise ValueError(f"`{name}` must not be negative, got {value}")
        if self.compression > 0.3:
            raise ValueError(f"`compression` must be at most 0.3, got {self.compression}")

    def disturb(self, start, seed, constrained=None):
        """A disturbed copy of a relaxed structure, with the label ``least_rise``.

        Parameters
        ----------
        start : Atoms
        seed : int
            The same seed disturbs in the same way.
        constrained : array, optional, shape (n_atoms,), bool
            Atoms that stay where they are.

        Raises
        ------
        DatasetError
            If the structure is not periodic in three dimensions.
        """
        if not start.pbc.all():
            raise DatasetError(
                f"structures must be periodic in three dimensions, but {start.symbols} is not"
            )
        generator = np.random.default_rng((seed, 5))
        delta = generator.uniform(-self.compression, self.expansion)
        shear = self.shear * generator.standard_normal((3, 3))
        shear = 0.5 * (shear + shear.T)
        strain = (delta - np.trace(shear) / 3) * np.eye(3) + shear
        u = self.displacement * generator.standard_normal((len(start), 3))
        if constrained is not None:
            u[constrained] = 0.0
        else:
            u -= u.mean(0)
        gradient = np.eye(3) + strain
        atoms = Atoms(
            start.numbers,
            start.positions @ gradient + u,
            cell=start.cell.array @ gradient,
            pbc=True,
            info=dict(start.info),
        )
        rate = strain @ np.linalg.inv(gradient)
        dense = VOLUME * len(start) / start.get_volume()
        stiffness = self.bulk_modulus * units.GPa * dense ** (4 / 3)
        least = 9 * stiffness * start.get_volume() * abs(delta) * min(abs(delta), LINEAR)
        atoms.info["least_rise"] = least + self.force_constant * dense * float(np.sum(u**2))
        atoms.info["rise_strain"] = voigt_from_matrix(torch.from_numpy(rate)).numpy()
        atoms.set_array("rise_displacement", u - u @ rate)
        return atoms


def parser():
    """The options of the command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("task", choices=("fit", "offsets", "rattle"))
    found.add_argument("files", type=Path, nargs="+", help="labeled structures")
    found.add_argument("--out", type=Path, help="file to write, extended XYZ")
    found.add_argument("--frames", default=":", help="which of the frames, as a slice")
    found.add_argument("--max-atoms", type=int, help="leave out larger structures")
    found.add_argument("--offsets", type=Path, help="JSON file of offsets, by name")
    found.add_argument("--name", help="of the offsets")
    found.add_argument("--hubbard", action="store_true", help="fit what +U adds too")
    found.add_argument("--model", help="potential whose zero the energies are brought to")
    for field in fields(Disturbance):
        found.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    return found


def main(arguments=None):
    """Write labels, or the offsets that they are made with."""
    options = parser().parse_args(arguments)
    chosen = DataSet("", frames=options.frames, max_atoms=options.max_atoms)
    frames, _ = read_frames(options.files, choose=lambda found: chosen.choose(found, ()))
    if options.task == "rattle":
        names = [f.name for f in fields(Disturbance)]
        disturbance = Disturbance(**{n: getattr(options, n) for n in names})
        made = [disturbance.disturb(f.atoms, k, f.constrained) for k, f in enumerate(frames)]
    else:
        known = {}
        if options.offsets.is_file():
            known = json.loads(options.offsets.read_text(encoding="utf-8"))
        if options.task == "fit":
            model = pretrained.load(options.model).model
            known[options.name] = fit(model, frames, hubbard=options.hubbard)
            options.offsets.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            return
        made = [without_offsets(f, known[options.name]) for f in frames]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(options.out, made, format="extxyz")


if __name__ == "__main__":
    main()
