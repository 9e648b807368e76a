import pytest
from ase import units
from ase.io import read

from pet_calc.errors import InvalidStructureError
from pet_calc.io.structures.lammps_dump import lacks_elements, name_types

DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
3
ITEM: BOX BOUNDS pp pp pp
0 5
0 5
0 5
ITEM: ATOMS id type x y z vx vy vz
1 2 0 0 0 1 2 3
2 1 1 0 0 0 0 0
3 1 0 1 0 0 0 10
"""


@pytest.fixture
def dump(tmp_path):
    path = tmp_path / "dump.lammpstrj"
    path.write_text(DUMP)
    return path


def test_types_become_elements_and_keep_their_velocities(dump):
    frames = read(dump, ":")
    assert frames[0].get_chemical_symbols() == ["He", "H", "H"]  # ASE's reading of the numbers
    name_types(frames, ["O", "Pb"])
    assert frames[0].get_chemical_symbols() == ["Pb", "O", "O"]
    assert frames[0].get_masses() == pytest.approx([207.2, 15.999, 15.999])
    per_ps = frames[0].get_velocities() * (1e3 * units.fs)
    assert per_ps[0] == pytest.approx([1, 2, 3])
    assert per_ps[2] == pytest.approx([0, 0, 10])


def test_missing_elements_are_noticed(dump, tmp_path):
    assert lacks_elements(dump)
    other = tmp_path / "other.lammpstrj"
    other.write_text(DUMP.replace("type x", "element x"))
    assert not lacks_elements(other)
    other.write_text("3\n\nO 0 0 0\n")
    assert not lacks_elements(other)


@pytest.mark.parametrize(
    ("symbols", "message"), [(["O"], "types 1 to 2, and 1"), (["O", "Xy"], "got Xy")]
)
def test_wrong_names_are_refused(dump, symbols, message):
    with pytest.raises(InvalidStructureError, match=message):
        name_types(read(dump, ":"), symbols)


def test_other_files_have_no_types(tmp_path):
    (tmp_path / "a.xyz").write_text("1\n\nO 0 0 0\n")
    with pytest.raises(InvalidStructureError, match="this file has none"):
        name_types(read(tmp_path / "a.xyz", ":"), ["O"])
