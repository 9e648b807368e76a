r"""Elastic constants of a crystal from the stress of strained copies.

σ_i = C_ij ε_j in Voigt order xx, yy, zz, yz, xz, xy with engineering shear strains, fitted by
``matscipy.elasticity`` to all six strains. The crystal may have any orientation: its point group
is found and imposed on the tensor afterwards, and what that changes is reported, since it measures
how far the potential is from being symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from pet_calc.errors import MissingDependencyError
from pet_calc.units import EV_PER_A3_TO_GPA
from pet_calc.workflows.mechanics.config import ElasticConfig
from pet_calc.workflows.progress import OnProgress, in_stage
from pet_calc.workflows.relax import RelaxConfig, relax_all
from pet_calc.workflows.relax.many import with_calculator
from pet_calc.workflows.relax.reference import relaxed_reference, require_usable
from pet_calc.workflows.relax.single import results
from pet_calc.workflows.relax.symmetry import find_symmetry, space_group

Array = NDArray[np.float64]

VOIGT: Final = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
AXES: Final = ("xx", "yy", "zz", "yz", "xz", "xy")
UPPER: Final = np.triu_indices(6)


@dataclass(frozen=True, eq=False)
class ElasticConstants:
    """Elastic tensor of a crystal, and what follows from it.

    Attributes
    ----------
    C, C_error : array, shape (6, 6)
        In GPa, with standard errors of the linear fits.
    C_raw : array, shape (6, 6)
        Before the point group was imposed.
    space_group : str
        Of the unstrained crystal; empty if it was not asked for.
    stress : array, shape (6,)
        Stress of the unstrained crystal in GPa, tension positive.
    moduli, moduli_error : dict
        See `moduli`.
    eigenvalues : array, shape (6,)
        Kelvin moduli in GPa, ascending. All positive: the crystal is elastically stable (Born's
        criteria for any symmetry) [Mouhat and Coudert, Phys. Rev. B 90, 224104 (2014)].
    crystal : Atoms
        The unstrained crystal.
    """

    C: Array
    C_error: Array
    C_raw: Array
    space_group: str
    stress: Array
    moduli: dict[str, float]
    moduli_error: dict[str, float]
    eigenvalues: Array
    crystal: Atoms

    @property
    def stable(self) -> bool:
        """Whether every small strain costs energy."""
        return bool(self.eigenvalues[0] > 0)

    @property
    def asymmetry(self) -> float:
        """Largest change of a constant in GPa by imposing the point group."""
        return float(np.abs(self.C - self.C_raw).max())


def elastic_constants(
    atoms: Atoms,
    config: ElasticConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> ElasticConstants:
    """Elastic tensor of a crystal with a calculator that gives the stress.

    Parameters
    ----------
    atoms : Atoms
        Periodic in three dimensions; not changed.
    config : ElasticConfig, optional
    on_progress : callable, optional
        Called with the `Progress` of the relaxation at the beginning, then of the
        6 × points strained copies.

    Raises
    ------
    MissingDependencyError
        Without matscipy, or without spglib to find the point group.
    InvalidStructureError
        If it cannot be relaxed.
    SimulationError
        If a relaxation does not converge.
    """
    config = config or ElasticConfig()
    elasticity = require_matscipy()
    crystal = relaxed_reference(
        atoms,
        config.fmax,
        config.steps,
        relax=config.relax,
        guards=config.guards,
        on_progress=on_progress,
    )
    rotations = point_group(crystal, config.symprec) if config.symmetrize else None
    crystal.calc = atoms.calc
    stress = results(crystal)[2]
    delta = 2.0 * config.strain / (config.points - 1)
    strained = list(
        elasticity.generate_strained_configs(crystal, "triclinic", config.points, delta)
    )
    outcomes = relax_all(
        with_calculator(strained, atoms.calc),
        RelaxConfig(
            fmax=config.fmax, steps=config.steps if config.relax_ions else 0, guards=config.guards
        ),
        on_progress=in_stage(on_progress, "strains"),
    )
    relaxed = [
        require_usable(outcome, f"strained crystal {k + 1}", moves=config.relax_ions)
        for k, outcome in enumerate(outcomes)
    ]
    fitted, errors = elasticity.fit_elastic_constants(
        relaxed,
        "triclinic",
        N_steps=config.points,
        delta=delta,
        optimizer=None,
        verbose=False,
        graphics=False,
    )
    raw = np.asarray(fitted) * EV_PER_A3_TO_GPA
    assert stress is not None
    tensor, tensor_error, values_error = with_errors(
        raw, np.asarray(errors) * EV_PER_A3_TO_GPA, rotations
    )
    return ElasticConstants(
        C=tensor,
        C_error=tensor_error,
        C_raw=raw,
        space_group=space_group(crystal, config.symprec) if config.symmetrize else "",
        stress=stress * EV_PER_A3_TO_GPA,
        moduli=moduli(tensor),
        moduli_error=values_error,
        eigenvalues=kelvin_moduli(tensor),
        crystal=crystal,
    )


def require_matscipy() -> Any:
    """The module ``matscipy.elasticity``, or a message that names the extra."""
    try:
        from matscipy import elasticity
    except ImportError as error:
        raise MissingDependencyError(
            'elastic constants need matscipy; pip install "pet-calc[matscipy]"'
        ) from error
    return elasticity


def point_group(atoms: Atoms, symprec: float) -> Array:
    """Rotations and reflections (n, 3, 3) of a crystal in Cartesian axes, exactly orthogonal."""
    lattice = atoms.cell.array.T
    operations = np.unique(find_symmetry(atoms, symprec).rotations, axis=0)
    cartesian = np.array([lattice @ w @ np.linalg.inv(lattice) for w in operations])
    # a lattice that has its symmetry within symprec only makes them orthogonal in that measure
    u, _, v = np.linalg.svd(cartesian)
    return np.asarray(u @ v)


def symmetrized(stiffness: Array, rotations: Array) -> Array:
    """Average of an elastic tensor (6, 6) over a group of `rotations` (n, 3, 3)."""
    order = np.zeros((3, 3), dtype=int)
    for k, (a, b) in enumerate(VOIGT):
        order[a, b] = order[b, a] = k
    full = stiffness[order[:, :, None, None], order[None, None]]
    r = rotations
    turned = np.einsum("nia,njb,nkc,nld,abcd->ijkl", r, r, r, r, full, optimize=True) / len(r)
    first, second = np.array(VOIGT).T
    return np.asarray(turned[first[:, None], second[:, None], first[None], second[None]])


def with_errors(
    raw: Array, raw_error: Array, rotations: Array | None
) -> tuple[Array, Array, dict[str, float]]:
    """Tensor after the point group, its errors, and those of its moduli.

    The errors of the 21 fitted constants are independent, and are propagated to first order.
    """

    def final(values: Array) -> Array:
        full = np.zeros((6, 6))
        full[UPPER] = values
        full = full + full.T - np.diag(np.diag(full))
        return full if rotations is None else symmetrized(full, rotations)

    tensor = final(raw[UPPER])
    variance = np.zeros((6, 6))
    by_name = dict.fromkeys(moduli(tensor), 0.0)
    step = 1e-4 * float(np.abs(raw).max())
    for k, error in enumerate(raw_error[UPPER]):
        unit = np.zeros(21)
        unit[k] = 1.0
        change = final(unit)
        variance += (error * change) ** 2
        above, below = moduli(tensor + step * change), moduli(tensor - step * change)
        for name in by_name:
            by_name[name] += (error * (above[name] - below[name]) / (2 * step)) ** 2
    return tensor, np.sqrt(variance), {k: float(np.sqrt(v)) for k, v in by_name.items()}


def moduli(stiffness: Array) -> dict[str, float]:
    """Moduli of a polycrystal from an elastic tensor (6, 6) in GPa.

    Returns
    -------
    dict
        Bulk and shear modulus after Voigt (upper bound), Reuss (lower bound) and Hill (their
        mean) [Hill, Proc. Phys. Soc. A 65, 349 (1952)], Young's modulus and Poisson's ratio of
        the Hill averages, and the universal anisotropy A_U [Ranganathan and Ostoja-Starzewski,
        Phys. Rev. Lett. 101, 055504 (2008)]. Moduli are in GPa.
    """
    c, s = stiffness, np.linalg.inv(stiffness)
    k_voigt = c[:3, :3].sum() / 9.0
    g_voigt = (np.trace(c[:3, :3]) - (c[0, 1] + c[0, 2] + c[1, 2]) + 3 * np.trace(c[3:, 3:])) / 15
    k_reuss = 1.0 / s[:3, :3].sum()
    off = s[0, 1] + s[0, 2] + s[1, 2]
    g_reuss = 15.0 / (4 * np.trace(s[:3, :3]) - 4 * off + 3 * np.trace(s[3:, 3:]))
    k, g = 0.5 * (k_voigt + k_reuss), 0.5 * (g_voigt + g_reuss)
    values = {
        "K_Voigt": k_voigt,
        "K_Reuss": k_reuss,
        "K_Hill": k,
        "G_Voigt": g_voigt,
        "G_Reuss": g_reuss,
        "G_Hill": g,
        "E_Hill": 9 * k * g / (3 * k + g),
        "poisson_Hill": (3 * k - 2 * g) / (2 * (3 * k + g)),
        "anisotropy": 5 * g_voigt / g_reuss + k_voigt / k_reuss - 6,
    }
    return {name: float(value) for name, value in values.items()}


def kelvin_moduli(stiffness: Array) -> Array:
    """Eigenvalues (6,) of an elastic tensor in an orthonormal basis of strains, ascending."""
    weight = np.sqrt([1, 1, 1, 2, 2, 2])
    return np.asarray(np.linalg.eigvalsh(stiffness * np.outer(weight, weight)))


def elastic_summary(result: ElasticConstants) -> dict[str, Any]:
    """All results as plain values with units in their names."""
    return {
        "formula": result.crystal.get_chemical_formula(),
        "space_group": result.space_group,
        "voigt_order": list(AXES),
        "C_GPa": result.C.tolist(),
        "C_error_GPa": result.C_error.tolist(),
        "C_before_symmetrization_GPa": result.C_raw.tolist(),
        "asymmetry_GPa": result.asymmetry,
        "moduli": result.moduli,
        "moduli_error": result.moduli_error,
        "kelvin_moduli_GPa": result.eigenvalues.tolist(),
        "stable": result.stable,
        "residual_stress_GPa": result.stress.tolist(),
    }
