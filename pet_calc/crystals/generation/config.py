"""What a generation is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pet_calc.crystals.diffusion.config import SamplerConfig
from pet_calc.crystals.generation.geometry_window import GeometryWindow
from pet_calc.workflows.md import MDConfig
from pet_calc.workflows.relax import RelaxConfig

if TYPE_CHECKING:
    from pet_calc.crystals.generation.composition import Composition

#: Proposals that need no trained model.
BASELINES = ("substitution", "random")
#: Proposals of a generation that is not told otherwise.
DEFAULT_SOURCES = ("unimat-mp", *BASELINES)


def default_relaxation() -> RelaxConfig:
    """Cell and positions, to what ranking needs."""
    return RelaxConfig(cell="free", fmax=0.03, steps=300, seconds=300.0)


@dataclass(frozen=True)
class GenerateConfig:
    """Settings of a generation.

    Attributes
    ----------
    formula : str
        Formula such as SrTiO3; several with commas; Na-Cl is a chemical system; by default a
        generator chooses. That is the first among the sources that can do it.
    z : tuple of int
        Formula units per cell. Without meaning where there is no formula.
    n : int
        Number of candidates in all.
    sources : tuple of str
        Sources of proposals: substitution, random, or name or folder of a generator. Substitution
        gives as many as
        it has structure types, at most its share; the others divide the rest. Cells with more
        atoms than a generator was trained on are left to the others.
    seed : int
        Seed of all proposals.
    sampler : SamplerConfig
        Of the generators.
    window : GeometryWindow
        Proposals outside of it are not relaxed.
    symprec : float
        Tolerance of the symmetry that is imposed on proposals and reported after their relaxation,
        Å; 0: none.
    space_groups : tuple of int
        Keep only these space groups (numbers).
    relax : RelaxConfig
        Of the candidates.
    duplicate : float
        Difference of fingerprints below which crystals are the same. See `fingerprint.distance`.
    phonons : int
        Number of the best candidates to test by phonons.
    md : int
        Number of the best candidates to run in molecular dynamics.
    md_steps : int
        Number of steps of 1 fs.
    temperature : float
        Temperature of the molecular dynamics, K.
    md_ensemble : str
        Ensemble of the molecular dynamics, as in `MDConfig`.
    within : tuple of str
        Without a formula: elements that may be chosen, as in Li,Fe,O.
    atoms : tuple of int
        Numbers of atoms that the cell may have, as in 4,8.
    """

    formula: str = ""
    z: tuple[int, ...] = (1, 2, 4)
    n: int = 64
    sources: tuple[str, ...] = DEFAULT_SOURCES
    seed: int = 0
    sampler: SamplerConfig = field(
        default_factory=SamplerConfig,
        metadata={
            "options": {"method": "sampler", "steps": "sampler_steps", "guidance": "guidance"}
        },
    )
    window: GeometryWindow = field(
        default_factory=GeometryWindow,
        metadata={"options": {"contact": "contact", "aspect": "aspect", "lengths": "lengths"}},
    )
    symprec: float = 0.1
    space_groups: tuple[int, ...] = ()
    relax: RelaxConfig = field(
        default_factory=default_relaxation,
        metadata={"options": {n: n for n in ("pressure", "fmax", "steps", "seconds")}},
    )
    duplicate: float = 0.02
    phonons: int = 0
    md: int = 0
    md_steps: int = 1000
    temperature: float = 300.0
    md_ensemble: str = "nvt-langevin"
    within: tuple[str, ...] = ()
    atoms: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.formula and not self.compositions:
            raise ValueError(
                f"no cell of {self.formula} with {self.z} formula units has "
                f"{' or '.join(map(str, self.atoms))} atoms; change `atoms` or `z`"
            )
        self._check_elements()
        if self.formula and self.within:
            raise ValueError("`within` is for compositions that no formula gives; use one of them")
        if not self.formula and set(self.sources) <= set(BASELINES):
            raise ValueError(
                "without a formula a generator has to choose compositions; give `formula`, or a "
                "generator among `sources`"
            )
        if self.n < 1 or min(self.phonons, self.md, self.seed) < 0:
            raise ValueError(
                f"`n` must be at least 1, `phonons`, `md` and `seed` not negative, got {self.n}, "
                f"{self.phonons}, {self.md}, {self.seed}"
            )
        if not self.sources or not self.z:
            raise ValueError("at least one source and one number of formula units are needed")
        if any(not 1 <= g <= 230 for g in self.space_groups):
            raise ValueError(f"space groups are numbered 1 to 230, got {self.space_groups}")
        if self.md:
            _ = self.dynamics
        if self.symprec < 0 or self.duplicate <= 0:
            raise ValueError("`symprec` must not be negative, `duplicate` must be positive")

    def _check_elements(self) -> None:
        if self.within:
            from ase.data import atomic_numbers

            if unknown := [s for s in self.within if s not in atomic_numbers]:
                raise ValueError(f"no element has the symbol {', '.join(unknown)}")

    @property
    def dynamics(self) -> MDConfig:
        """Settings of the molecular dynamics of a winner."""
        return MDConfig(
            ensemble=self.md_ensemble,  # type: ignore[arg-type]
            timestep=1.0,
            temperature=self.temperature,
            steps=self.md_steps,
            seed=self.seed,
        )

    @property
    def compositions(self) -> tuple[Composition, ...]:
        """Every formula with every number of formula units; empty without a formula."""
        if not self.formula:
            return ()
        from pet_calc.crystals.generation.composition import Composition

        found = (c for z in self.z for c in Composition.all_of(self.formula, z))
        return tuple(c for c in found if not self.atoms or c.n_atoms in self.atoms)
