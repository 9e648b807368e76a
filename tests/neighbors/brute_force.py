"""The oracle of the neighbor lists: every image in an enclosing block, tested one by one."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from pet_calc.geometry import Edges, System
from pet_calc.neighbors.vesin_cpu import complete_cell


def brute_force_edges(system: System, cutoff: float) -> Edges:
    """The same list as `neighbor_list` by exhaustive search; for tests of small systems.

    The reverse edge is found by looking up (j, i, -S), independently of how the fast list
    obtains it.
    """
    rows: list[tuple[int, ...]] = []
    positions = system.positions.detach().cpu().numpy()
    for s in range(system.n_systems):
        atoms = np.flatnonzero(system.system_index.cpu().numpy() == s)
        pbc = system.pbc[s].cpu().numpy()
        cell = complete_cell(system.cell[s].detach().cpu().numpy(), pbc)
        x = positions[atoms]
        # fractional extent of the atoms plus the cutoff sphere bounds every shift
        spread = np.ptp(x @ np.linalg.inv(cell), axis=0)
        heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        reach = np.where(pbc, np.ceil(cutoff / heights + spread).astype(int), 0)
        for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
            vectors = x[None, :, :] - x[:, None, :] + np.array(shift) @ cell
            close = np.linalg.norm(vectors, axis=-1) < cutoff
            if shift == (0, 0, 0):
                np.fill_diagonal(close, val=False)
            rows.extend(
                (int(atoms[a]), int(atoms[b]), *shift)
                for a, b in zip(*np.nonzero(close), strict=True)
            )
    rows.sort()
    index = {row: k for k, row in enumerate(rows)}
    reverse = [index[(j, i, -a, -b, -c)] for i, j, a, b, c in rows]
    table = torch.tensor(rows, dtype=torch.int64, device=system.device).reshape(-1, 5)
    return Edges(
        edge_index=table[:, :2].T.contiguous(),
        cell_shifts=table[:, 2:].contiguous(),
        reverse_edge=torch.tensor(reverse, dtype=torch.int64, device=system.device),
    )
