r"""Properties of crystals: value, unit, uncertainty, and whether it is in the model's domain.

A property is read from a graph of nearest neighbors, which jumps as atoms move; it is never an
energy to run on. Where a model predicts whether a crystal is a metal, its band gap is gated: 0 if a
metal is more probable than not. With the probability p of a metal, the gap g with deviation σ and
the answer v, the variance is that of the mixture,

.. math:: \mathrm{std}^2 = p\,v^2 + (1 - p)\,[(g - v)^2 + \sigma^2]

Logarithms become numbers again, std = ln(10) value σ. A crystal is in the domain if its features
are as near to those of the training crystals as those of 99 % of held-out crystals, and its atoms
take a volume like there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from ase import Atoms
from ase.data import chemical_symbols

from pet_calc import pretrained
from pet_calc.crystals.io.graphs import graph_of
from pet_calc.crystals.io.property_weights import is_property_model, load_property_model
from pet_calc.crystals.models import CrystalGraph, PropertyEnsemble
from pet_calc.crystals.models.backbone import Encoding
from pet_calc.crystals.properties.config import PredictConfig
from pet_calc.crystals.properties.potential_estimates import PotentialEstimates
from pet_calc.errors import (
    InvalidStructureError,
    PetCalcError,
    UnsupportedElementError,
)

#: Crystals of more atoms in all are evaluated in several batches.
_BATCH_ATOMS = 2000
METAL = "is_metal"
GAP = "band_gap"


@dataclass(frozen=True)
class Prediction:
    """A property of a crystal.

    Attributes
    ----------
    value : float
        In `unit`; of a class, its probability; NaN if `PropertyPredictor.many` has no answer.
    unit : str
    std : float
        Standard deviation of the value; NaN if the model has no uncertainty.
    in_domain : bool
        Whether the model was trained on crystals like this one.
    reason : str
        Why not, or how the answer came about; may be empty.
    """

    value: float
    unit: str
    std: float
    in_domain: bool
    reason: str


@dataclass(frozen=True, eq=False)
class Prepared:
    """A crystal as a model reads it.

    Attributes
    ----------
    graph : CrystalGraph
    swelling : float
        `PropertyPredictor.swelling`.
    energy : float
        Per atom, of the potential that the model names, in eV; NaN where it has no say in the
        property that is asked for.
    """

    graph: CrystalGraph
    swelling: float
    energy: float


class PropertyPredictor:
    """A property model for use in loops; called with atoms, it predicts.

    Parameters
    ----------
    property : str
        Such as "band_gap".
    model : str or Path
        A shipped model, a folder that `pet-calc train` made, or "auto": the newest shipped one with
        that property.
    """

    def __init__(self, property: str, model: str | Path = "auto") -> None:
        self.property = property
        self.name, self.folder, self.model = load_for(property, model)
        names = [t.name for t in self.model.config.targets]
        self.target = self.model.config.targets[names.index(property)]
        self._column = names.index(property)
        self._metal = names.index(METAL) if property == GAP and METAL in names else None
        term = self.model.config.potential
        has_a_say = term is not None and term.target == property
        self._potential = PotentialEstimates(term.name) if term and has_a_say else None

    def __call__(self, atoms: Atoms) -> Prediction:
        """The property of one crystal.

        Raises
        ------
        InvalidStructureError
            For what is no crystal: without a cell, disordered, or overlapping.
        UnsupportedElementError
            For an element that the model was not trained on.
        """
        return self._predict([self._prepared(atoms)])[0]

    def many(self, crystals: Sequence[Atoms]) -> list[Prediction]:
        """The property of several; one without an answer is NaN, with the error as its reason."""
        return list(self.iterate(crystals))

    def iterate(self, crystals: Sequence[Atoms]) -> Iterator[Prediction]:
        """As `many`, one after the other."""
        waiting: list[Prepared | str] = []
        size = 0
        for atoms in crystals:
            try:
                waiting.append(self._prepared(atoms))
            except (InvalidStructureError, UnsupportedElementError) as error:
                waiting.append(str(error))
            else:
                size += len(atoms)
            if size > _BATCH_ATOMS:
                yield from self._answers(waiting)
                waiting, size = [], 0
        yield from self._answers(waiting)

    def graph(self, atoms: Atoms) -> CrystalGraph:
        """The graph of a crystal whose elements are known; raises as a call does."""
        unknown = sorted(set(atoms.numbers.tolist()) - set(self.model.config.elements))
        if unknown:
            raise UnsupportedElementError(
                f"{self.name} was trained on crystals of {len(self.model.config.elements)} "
                f"elements without {', '.join(chemical_symbols[z] for z in unknown)}; choose "
                f"another model, or train one with `pet-calc train`"
            )
        return graph_of(atoms, self.model.graph_config)

    def swelling(self, atoms: Atoms) -> float:
        """Ln of the volume over that of such atoms in the training crystals."""
        return self.model.swelling(torch.from_numpy(atoms.numbers), float(atoms.cell.volume))

    def encode(self, atoms: Atoms) -> Encoding:
        """Features of the atoms and their mean, for models of one's own."""
        return self.model.encode(self.graph(atoms).to(torch.float64))

    def _prepared(self, atoms: Atoms) -> Prepared:
        graph = self.graph(atoms)
        energy = float(self._potential([atoms])) if self._potential is not None else math.nan
        return Prepared(graph, self.swelling(atoms), energy)

    def _answers(self, waiting: Sequence[Prepared | str]) -> Iterator[Prediction]:
        crystals = [c for c in waiting if not isinstance(c, str)]
        found = iter(self._predict(crystals) if crystals else [])
        for c in waiting:
            if isinstance(c, str):
                yield Prediction(math.nan, self.target.unit, math.nan, False, c)
            else:
                yield next(found)

    def _predict(self, crystals: Sequence[Prepared]) -> list[Prediction]:
        model, k = self.model, self._column
        energies = torch.tensor([c.energy for c in crystals], dtype=torch.float64)
        with torch.no_grad():
            graph = CrystalGraph.concatenate([c.graph for c in crystals]).to(torch.float64)
            answers = model(graph, energies if model.config.potential is not None else None)
            sigmas = model.deviations(answers)[:, k]
        found = []
        for row, distance, sigma, crystal in zip(
            answers.values.tolist(), answers.distances.tolist(), sigmas.tolist(), crystals,
            strict=True,
        ):  # fmt: skip
            reason = self._unlike(distance, crystal.swelling)
            answer = replace(self._answer(row[k], sigma), in_domain=not reason, reason=reason)
            if self._metal is not None:
                answer = gated(answer, sigmoid(row[self._metal]))
            found.append(answer)
        return found

    def _unlike(self, distance: float, swelling: float) -> str:
        """How a crystal is unlike those of the training; empty if it is not."""
        limit = float(self.model.distance_limit)
        low, high = self.model.volume_limits.tolist()
        reasons = [
            f"distance {distance:.2f} of features, those of 99 % of held-out crystals are below "
            f"{limit:.2f}"
        ] if distance > limit else []  # fmt: skip
        if not low <= swelling <= high:
            reasons.append(
                f"its volume is {math.exp(swelling):.2f} times that of such atoms there, which "
                f"lies between {math.exp(low):.2f} and {math.exp(high):.2f}"
            )
        return "unlike the training crystals: " + "; ".join(reasons) if reasons else ""

    def _answer(self, value: float, sigma: float) -> Prediction:
        unit, kind = self.target.unit, self.target.kind
        if kind == "class":
            p = sigmoid(value)
            return Prediction(p, unit, math.sqrt(p * (1 - p)), True, "")
        if kind == "log10":
            number = 10.0 ** min(value, 300.0)
            return Prediction(number, unit, math.log(10) * number * sigma, True, "")
        return Prediction(value, unit, sigma, True, "")


def sigmoid(x: float) -> float:
    """1 / (1 + e⁻ˣ)."""
    return 0.5 * (1 + math.tanh(0.5 * x))


def gated(gap: Prediction, p: float) -> Prediction:
    """A band gap where a metal has the probability `p`; see the module."""
    g = max(gap.value, 0.0)
    value = 0.0 if p > 0.5 else g
    std = math.sqrt(p * value**2 + (1 - p) * ((g - value) ** 2 + gap.std**2))
    note = f"a metal with probability {p:.2f}"
    reason = f"{gap.reason}; {note}" if gap.reason else note
    return replace(gap, value=value, std=std, reason=reason if p > 0.5 or gap.reason else "")


def load_for(property: str, model: str | Path) -> tuple[str, Path, PropertyEnsemble]:
    """Name, folder and model, in float64, for a property.

    Raises
    ------
    PetCalcError
        If there is no such model, or it does not predict the property.
    """
    entries = pretrained.list_potentials("property")
    folder, named = Path(model).expanduser(), pretrained.find_property_model(str(model))
    if str(model) == "auto":
        fitting = [e for e in entries if property in e.targets]
        if not fitting:
            known = sorted({t for e in entries for t in e.targets}) or ["none"]
            raise PetCalcError(
                f"no shipped model predicts {property!r}; there are models of {', '.join(known)}. "
                f"Train one with `pet-calc train` and name its folder"
            )
        entry = max(fitting, key=lambda e: (len(e.elements), e.version))
        name, folder, digests = entry.name, entry.folder, entry.sha256
    elif named is not None:
        name, folder, digests = named.name, named.folder, named.sha256
    elif is_property_model(folder):
        name, digests = folder.name, None
    else:
        known = sorted(e.name for e in entries) or ["none"]
        raise PetCalcError(
            f"{model} is no property model: neither shipped ({', '.join(known)}) nor a folder "
            f"with one, such as `pet-calc train` makes"
        )
    found = load_property_model(folder, digests)
    names = [t.name for t in found.config.targets]
    if property not in names:
        raise PetCalcError(f"{name} predicts {', '.join(names)}, but not {property!r}")
    return name, folder, found.double()


def predict(
    structures: Atoms | Sequence[Atoms], config: PredictConfig
) -> dict[str, list[Prediction]]:
    """Properties of crystals; for use in loops, keep a `PropertyPredictor`.

    Parameters
    ----------
    structures : ase.Atoms or sequence of ase.Atoms
        Periodic in three dimensions, every site with one atom.
    config : PredictConfig
        Which properties, and by which model; errors are those of `PropertyPredictor`.

    Returns
    -------
    dict
        For each property a `Prediction` of every structure, in their order. One that has no answer
        is NaN, with the reason.
    """
    crystals = [structures] if isinstance(structures, Atoms) else list(structures)
    predictors = {name: PropertyPredictor(name, config.model) for name in config.properties}
    return {name: predictor.many(crystals) for name, predictor in predictors.items()}
