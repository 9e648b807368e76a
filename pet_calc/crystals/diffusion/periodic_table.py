"""Places of the elements in a table of 9 rows and 18 columns.

Rows 0 to 6 are the periods 1 to 7; rows 7 and 8 are the lanthanides and actinides, below the
columns 3 to 17 of the groups (index 2 to 16). 118 of the 162 cells hold an element; two of the
others hold the lattice.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

N_ROWS: Final = 9
N_COLUMNS: Final = 18
N_ELEMENTS: Final = 118

#: Atomic numbers of the noble gases, where the periods end.
_ENDS: Final = (0, 2, 10, 18, 36, 54, 86, 118)
_FIRST_F: Final = {5: 57, 6: 89}


def place(number: int) -> tuple[int, int]:
    """Row and column of an element.

    Parameters
    ----------
    number : int
        Atomic number, 1 to 118.

    Raises
    ------
    ValueError
        For a number that is no element's.
    """
    if not 1 <= number <= N_ELEMENTS:
        raise ValueError(f"an atomic number is between 1 and {N_ELEMENTS}, got {number}")
    row = next(k for k in range(7) if number <= _ENDS[k + 1])
    first = _FIRST_F.get(row)
    if first is not None and first <= number < first + 15:
        return row + 2, 2 + number - first
    from_left = number - _ENDS[row] - 1
    from_right = _ENDS[row + 1] - number
    left = 1 if row == 0 else 2
    return row, from_left if from_left < left else N_COLUMNS - 1 - from_right


#: (119, 2): row and column by atomic number; entry 0 is no element's and points to a free cell.
PLACES: Final[NDArray[np.int64]] = np.array(
    [(0, 1), *(place(z) for z in range(1, N_ELEMENTS + 1))], dtype=np.int64
)

#: (9, 18): atomic number in each cell, 0 where the table is empty.
NUMBERS: Final[NDArray[np.int64]] = np.zeros((N_ROWS, N_COLUMNS), dtype=np.int64)
NUMBERS[PLACES[1:, 0], PLACES[1:, 1]] = np.arange(1, N_ELEMENTS + 1)

#: Free cells of the first row, which carry lengths and angles of the lattice.
LENGTHS_PLACE: Final = (0, 8)
ANGLES_PLACE: Final = (0, 9)
