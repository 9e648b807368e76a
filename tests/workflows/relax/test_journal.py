import csv
import io

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read

from pet_calc.io.runs.provenance import record_of
from pet_calc.io.structures.extxyz import extxyz_frame
from pet_calc.workflows.relax import RelaxConfig, relax_all, with_calculator
from pet_calc.workflows.relax.journal import FRAMES, JOURNAL, TABLE, Entry, Journal

ORIGIN = {"command": "pet-calc relax 'a \"b\\c' 100%", "seed": 3, "versions": {"ase": "3"}}


@pytest.fixture
def entries():
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.05, seed=1)
    crystal.info = {"name": "x\\y z", "REF_energy": -3.0, "labels": np.ones(3)}
    crystal.arrays["REF_forces"] = np.ones((4, 3))
    return [
        Entry("b.xyz", 0, crystal),
        Entry("missing.xyz", 0, None, "there is no file"),
        Entry("a.xyz", 4, molecule("N2")),
        Entry("bad.xyz", 0, bulk("Fe")),
    ]


@pytest.fixture
def outcomes(entries):
    known = [e.atoms for e in entries if e.atoms is not None]
    return dict(
        zip((0, 2, 3), relax_all(with_calculator(known, EMT()), RelaxConfig()), strict=True)
    )


def rows(folder):
    with (folder / TABLE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_files_follow_the_order_of_the_input(entries, outcomes, tmp_path):
    journal = Journal(tmp_path, entries, ORIGIN, resume=False)
    for k in (3, 2, 0):
        journal.add(k, outcomes[k])
    journal.finish()
    table = rows(tmp_path)
    assert [row["file"] for row in table] == ["b.xyz", "a.xyz", "bad.xyz"]
    assert [row["status"] for row in table] == ["converged", "converged", "failed"]
    assert "No EMT-potential for Fe" in table[2]["reason"]
    assert float(table[0]["fmax_eV_per_A"]) == outcomes[0].fmax
    assert table[0]["space_group_after_0.01"] == "Fm-3m (225)"
    assert table[0]["space_group_before_1e-05"] == "P1 (1)"
    assert table[1]["volume_change_percent"] == ""
    frames = read(tmp_path / FRAMES, index=":")
    assert len(frames) == 2
    assert (frames[0].positions == outcomes[0].atoms.positions).all()
    assert (frames[0].get_forces() == outcomes[0].atoms.get_forces()).all()
    np.testing.assert_array_equal(frames[0].get_stress(), outcomes[0].stress)
    assert frames[1].get_potential_energy() == outcomes[2].energy
    assert frames[0].info["source"] == "b.xyz"
    assert frames[0].info["name"] == "x\\y z"
    assert record_of(frames[1]) == ORIGIN
    # what was true of another geometry is not carried along
    assert not {"REF_energy", "labels"} & set(frames[0].info)
    assert "REF_forces" not in frames[0].arrays


def test_resumed_run_keeps_what_is_done(entries, outcomes, tmp_path):
    first = Journal(tmp_path, entries, ORIGIN, resume=False)
    first.add(0, outcomes[0])
    first.add(2, outcomes[2])
    with (tmp_path / JOURNAL).open("a", encoding="utf-8") as file:
        file.write('{"row": {"file": "bad.x')
    moved = [entries[3], entries[0], entries[2]]
    again = Journal(tmp_path, moved, ORIGIN, resume=True)
    assert again.missing == [0]
    again.add(0, outcomes[3])
    again.finish()
    assert [row["file"] for row in rows(tmp_path)] == ["bad.xyz", "b.xyz", "a.xyz"]
    # structures that are not asked for stay
    alone = Journal(tmp_path, entries[:1], ORIGIN, resume=True)
    assert alone.missing == []
    alone.finish()
    assert [row["file"] for row in rows(tmp_path)] == ["b.xyz", "a.xyz", "bad.xyz"]
    # another structure under the same name is another structure
    entries[0].atoms.positions[0] += 1e-9
    assert Journal(tmp_path, entries, ORIGIN, resume=True).missing == [0, 1]


def test_frames_have_all_digits_and_fixed_atoms():
    atoms = bulk("Cu", cubic=True)
    atoms.positions += np.pi
    atoms.set_constraint(FixAtoms([2]))
    atoms.set_tags([1, 2, 3, 4])
    back = read(io.StringIO(extxyz_frame(atoms, {"empty": "", "two": "a\nb"})), format="extxyz")
    assert (back.positions == atoms.positions).all()
    assert (back.get_tags() == atoms.get_tags()).all()
    assert back.constraints[0].get_indices().tolist() == [2]
    assert back.info == {"two": "a b"}
