"""Occupancy of M: which elements a crystal has, and how many atoms of each.

Two-stage generation without a given formula, "occupancy first": p(crystal) = p(occupancy)
p(locations | occupancy). The second factor is the composition-conditioned denoiser (`sparse`), the
first one this autoregressive model over the elements by atomic number,

p(occupancy) = Π_k p(element_k | before) p(atoms_k | before, element_k),

whose end is an outcome like the elements. Only sequences of rising elements are possible, so that
each occupancy has one sequence and the probabilities of all of them sum to one. (In UniMat proper,
occupancy and locations are denoised together.)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from pet_calc.crystals.diffusion.periodic_table import N_ELEMENTS
from pet_calc.errors import SimulationError

#: Atomic number and number of atoms, by atomic number.
Counts = tuple[tuple[int, int], ...]

#: Outcome that ends a sequence; elements are 1 to 118, n atoms are 118 + n.
END: Final = 0
#: Sequences drawn for each one wanted before a search under bounds gives up.
ATTEMPTS: Final = 200


@dataclass(frozen=True)
class OccupancyConfig:
    """Size of an `OccupancyModel`.

    Attributes
    ----------
    width : int
        Of the recurrent state.
    slots : int
        Most atoms of one element.
    atoms : int
        Most atoms of a crystal.
    dropout : float
    """

    width: int = 128
    slots: int = 20
    atoms: int = 20
    dropout: float = 0.1

    def to_dict(self) -> dict[str, Any]:
        """The fields, for ``config.json``."""
        return asdict(self)


def sequences(occupancies: Sequence[Counts]) -> Tensor:
    """Outcomes of occupancies, (B, T) int64: element, atoms, element, atoms, ..., end, end."""
    longest = max(len(c) for c in occupancies)
    rows = torch.full((len(occupancies), 2 * longest + 1), END)
    for k, counts in enumerate(occupancies):
        flat = [v for z, n in sorted(counts) for v in (z, N_ELEMENTS + n)]
        rows[k, : len(flat)] = torch.tensor(flat)
    return rows


class OccupancyModel(nn.Module):
    """Recurrent network over outcomes; see this module."""

    def __init__(self, config: OccupancyConfig) -> None:
        super().__init__()
        self.config = config
        outcomes = 1 + N_ELEMENTS + config.slots
        self.outcome = nn.Embedding(outcomes, config.width)
        self.state = nn.GRU(config.width, config.width, batch_first=True)
        self.drop = nn.Dropout(config.dropout)
        self.to_outcome = nn.Linear(config.width, outcomes)

    def possible(self, position: int, element: Tensor, left: Tensor) -> Tensor:
        """Which outcomes may stand at a position, (B, outcomes) bool.

        Parameters
        ----------
        position : int
            Even ones are elements' or the end's, odd ones numbers'.
        element : (B,) Tensor
            The element before, 0 at the beginning, -1 after the end.
        left : (B,) Tensor
            Atoms that there is still room for.
        """
        outcome = torch.arange(self.to_outcome.out_features, device=element.device)
        if position % 2:
            n = outcome - N_ELEMENTS
            allowed = (n >= 1) & (n <= left[:, None])
        else:
            allowed = (outcome <= N_ELEMENTS) & (outcome > element[:, None]) & (left[:, None] > 0)
            allowed[:, END] = element != 0
        ended = element < 0
        allowed[ended] = outcome == END
        return allowed

    def log_probability(self, rows: Tensor) -> Tensor:
        """Logarithm of the probability of sequences (B, T), (B,); −inf for impossible ones."""
        before = torch.cat([torch.zeros_like(rows[:, :1]), rows[:, :-1]], 1)
        hidden, _ = self.state(self.outcome(before))
        logits = self.to_outcome(self.drop(hidden))
        element = torch.zeros_like(rows[:, 0])
        left = torch.full_like(element, self.config.atoms)
        total = logits.new_zeros(len(rows))
        for t in range(rows.shape[1]):
            allowed = self.possible(t, element, left)
            logs = logits[:, t].masked_fill(~allowed, -torch.inf).log_softmax(-1)
            total = total + logs.gather(1, rows[:, t : t + 1])[:, 0]
            element, left = _advanced(t, rows[:, t], element, left)
        return total

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        *,
        elements: Collection[int] | None = None,
        atoms: Collection[int] | None = None,
    ) -> list[Counts]:
        """Draw occupancies.

        Parameters
        ----------
        n : int
        generator : torch.Generator
        elements : collection of int, optional
            Atomic numbers that may occur; the others are left out of every choice.
        atoms : collection of int, optional
            Wanted numbers of atoms in the cell; what has another one is drawn again.

        Raises
        ------
        SimulationError
            If too few are within the bounds.
        """
        found: list[Counts] = []
        drawn = 0
        while len(found) < n:
            if drawn > ATTEMPTS * n:
                raise SimulationError(
                    f"{len(found)} of {n} compositions with {sorted(atoms or ())} atoms were "
                    f"found among {drawn}; ask for other numbers of atoms or elements"
                )
            size = max(64, n)
            drawn += size
            for counts in self._draw(size, generator, elements):
                total = sum(k for _, k in counts)
                if len(found) < n and (atoms is None or total in atoms):
                    found.append(counts)
        return found

    @torch.inference_mode()
    def _draw(
        self, n: int, generator: torch.Generator, elements: Collection[int] | None
    ) -> list[Counts]:
        forbidden = torch.zeros(self.to_outcome.out_features, dtype=torch.bool)
        if elements is not None:
            forbidden[1 : N_ELEMENTS + 1] = True
            forbidden[list(elements)] = False
        last = torch.zeros(n, dtype=torch.int64)
        element, left = last.clone(), torch.full((n,), self.config.atoms)
        state: Tensor | None = None
        rows: list[Tensor] = []
        while (element >= 0).any():
            hidden, state = self.state(self.outcome(last[:, None]), state)
            allowed = self.possible(len(rows), element, left) & ~forbidden
            # where every element above the last one is forbidden, only the end is left
            logits = self.to_outcome(hidden[:, 0]).masked_fill(~allowed, -torch.inf)
            last = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
            element, left = _advanced(len(rows), last, element, left)
            rows.append(last)
        found: list[Counts] = []
        for row in torch.stack(rows, 1).tolist():
            pairs = zip(row[::2], row[1::2], strict=False)
            found.append(tuple((z, k - N_ELEMENTS) for z, k in pairs if z != END))
        return found


def _advanced(
    position: int, outcome: Tensor, element: Tensor, left: Tensor
) -> tuple[Tensor, Tensor]:
    """Last element (−1 after the end) and room after an outcome."""
    if position % 2:
        return element, torch.where(element < 0, left, left - (outcome - N_ELEMENTS))
    ended = (element < 0) | (outcome == END)
    return torch.where(ended, -torch.ones_like(element), outcome), left
