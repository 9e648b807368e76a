"""Every example runs with ``--smoke`` and prints what its header promises."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from calculators.small_potentials import small_pet

from pet_calc import pretrained
from pet_calc.errors import UnsupportedElementError
from pet_calc.io.models.weights import save_model

EXAMPLES = Path(__file__).parents[1] / "md_examples"


def smoke(name, tmp_path, *options):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, "--smoke", "--out", str(tmp_path / "out"), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), str(tmp_path)])},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_water_nvt(tmp_path):
    text = smoke("01_water_nvt.py", tmp_path)
    found = re.search(r"g_OO first peak\s+(\d\.\d+)", text)
    assert found is not None, text
    assert 2.2 < float(found[1]) < 3.5
    assert {"trajectory.traj", "log.csv", "water.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


ALLOY_PAIRS = """
from ase.calculators.lj import LennardJones

def make():
    return LennardJones(sigma=2.5, epsilon=0.3, rc=4.5, smooth=True)
"""


def check_alloy(text):
    found = re.findall(r"(\d+) K   Mo-Ta order +(-?\d\.\d+)   (\d+) % of swaps", text)
    assert [int(temperature) for temperature, _, _ in found] == [2500, 1000, 300], text
    assert all(-3.0 <= float(order) <= 1.0 for _, order, _ in found)
    return found


def test_alloy_swaps_with_a_calculator_of_ones_own(tmp_path):
    (tmp_path / "pairs.py").write_text(ALLOY_PAIRS)
    found = check_alloy(smoke("02_nbmotaw_swaps.py", tmp_path, "--calculator", "pairs:make"))
    # all atoms attract alike: every swap is accepted
    assert {percent for _, _, percent in found} == {"100"}


def test_alloy_swaps(tmp_path):
    try:
        pretrained.choose_for([["Nb", "Mo", "Ta", "W"]])
    except UnsupportedElementError:
        pytest.skip("no shipped potential covers Nb, Mo, Ta and W")
    check_alloy(smoke("02_nbmotaw_swaps.py", tmp_path))


def test_si_phonons(tmp_path):
    pytest.importorskip("phonopy")
    save_model(tmp_path / "model", small_pet((14,)))
    text = smoke("05_si_phonons.py", tmp_path, "--model", str(tmp_path / "model"))
    assert re.search(r"optical mode at Γ\s+-?\d+\.\d+ THz", text), text
    assert {"phonons.png", "phonopy.yaml"} <= {p.name for p in (tmp_path / "out").iterdir()}


def test_water_dynamics(tmp_path):
    text = smoke("03_water_dynamics.py", tmp_path)
    found = re.search(r"O-H stretching peak\s+(\d+)", text)
    assert found is not None, text
    assert 2500 < int(found[1]) < 4500
    assert "self-diffusion" in text
    assert (tmp_path / "out" / "observables.png").is_file()


def test_relax_to_elastic(tmp_path):
    text = smoke("04_relax_to_elastic.py", tmp_path)
    found = {name: float(value) for name, value in re.findall(r"(B from \S+)\s+(\S+) GPa", text)}
    assert len(found) == 2, text
    elasticity, energy = found.values()
    # copper of EMT
    assert abs(elasticity - 134.5) < 0.5
    assert abs(energy - elasticity) < 0.5
    assert {"elastic.json", "eos.png"} == {path.name for path in (tmp_path / "out").iterdir()}


def test_generate_crystals(tmp_path):
    text = smoke("06_generate_crystals.py", tmp_path)
    assert "best crystal of Cu3Au   Pm-3m (221)" in text
    assert (tmp_path / "out" / "candidates.csv").is_file()


def test_relax_many(tmp_path):
    text = smoke("07_relax_many.py", tmp_path)
    groups = re.findall(r"^(\w+) +converged in \d+ steps   (.*?) -> (.*?)   formation", text, re.M)
    assert [name for name, _, _ in groups] == ["Mo", "Ta", "MoTa"], text
    assert all(before != "Im-3m (229)" for _, before, _ in groups)
    found = re.search(r"orders most   MoTa, (-\d+\.\d) meV/atom\n3 of 3 converged", text)
    assert found is not None, text
    assert -250 < float(found[1]) < -150


def test_vacancy_barrier(tmp_path):
    text = smoke("08_vacancy_barrier.py", tmp_path)
    found = re.search(r"band +converged\n.*\nbarrier +(\d\.\d+) eV", text)
    assert found is not None, text
    # copper of EMT
    assert abs(float(found[1]) - 0.80) < 0.02
    assert {"neb.json", "neb.png"} == {path.name for path in (tmp_path / "out").iterdir()}


def test_doctor(tmp_path):
    text = smoke("09_doctor.py", tmp_path)
    found = re.search(r"error of the forces  (\S+) eV/Å\nverdict +pass", text)
    assert found is not None, text
    assert float(found[1]) < 1e-4
    # another one learnt the symmetry from data
    text = smoke("09_doctor.py", tmp_path, "--model", "pet-water-v1")
    assert "warning         rotation" in text
    assert re.search(r"verdict +warning", text), text


def test_doctor_on_a_file_with_a_calculator_of_ones_own(tmp_path):
    (tmp_path / "pairs.py").write_text(ALLOY_PAIRS.replace("smooth=True", "smooth=False"))
    write(tmp_path / "W.traj", bulk("W", cubic=True) * 2)
    options = ("--structure", "W.traj", "--calculator", "pairs:make")
    text = smoke("09_doctor.py", tmp_path, *options)
    # a pair potential that is cut off is found out
    assert re.search(r"^(warning|fail) +smoothness of the energy", text, re.M), text


def test_guards(tmp_path):
    text = smoke("10_guards.py", tmp_path)
    for pattern in (
        r"stopped at step +\d+, of 200",
        r"cause +atom \d+ \(\w+\) and atom \d+ \(\w+\).* are \d\.\d+ Å apart, but the",
        r"atoms +[HO] \d+ and [HO] \d+",
        r"last good distance +\d\.\d+ Å",
        r"from there, 0.5 fs   5 steps without a stop",
    ):
        assert re.search(pattern, text), text
    step = int(re.search(r"last good frame +step (\d+)", text)[1])
    assert int(re.search(r"frames kept +(\d+)", text)[1]) == step + 1
    assert (tmp_path / "out" / "2.5fs" / "last_good.traj").is_file()


def test_thermal_expansion(tmp_path):
    pytest.importorskip("phonopy")
    text = smoke("11_thermal_expansion.py", tmp_path)
    found = re.search(r"linear expansion +(\d+\.\d)e-6 per K", text)
    assert found is not None, text
    # copper of EMT
    assert abs(float(found[1]) - 20.8) < 0.6
    assert (tmp_path / "out" / "qha.png").is_file()


def test_report(tmp_path):
    pytest.importorskip("chemiscope")
    text = smoke("12_report.py", tmp_path)
    assert re.search(r"mean temperature +\d+.* K\npage .*report\.html, \d\.\d MB, 11 frames", text)


def test_water_dipoles(tmp_path):
    pytest.importorskip("e3nn")
    text = smoke("13_water_dipoles.py", tmp_path)
    found = re.search(
        r"dipole +error (\S+) %\ncharges instead +error (\S+) %\none molecule +(\S+) D\n"
        r"polarizability +error (\d+) %",
        text,
    )
    assert found is not None, text
    head, charges, debye, polarizability = map(float, found.groups())
    # of PBE0 1.9 D; one charge for all explains most of it, the head more
    assert head < 0.9 * charges < 10
    assert abs(debye - 1.9) < 0.05
    assert polarizability < 50
    assert {"dipole.safetensors", "polarizability.safetensors"} == {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_acetylacetone(tmp_path):
    text = smoke("14_acetylacetone.py", tmp_path)
    found = re.search(
        r"at rest +(\d\.\d+) Å\nO-H\.\.\.O on average +(\d\.\d+) Å.*\n.*\nproton transfers +(\d+)",
        text,
    )
    assert found is not None, text
    # a strong hydrogen bond
    assert 2.35 < float(found[1]) < 2.6
    assert 2.2 < float(found[2]) < 2.8
    assert int(found[3]) <= 5


def test_every_example_says_how_it_is_called():
    """Numbered, with a header that shows a call with and without ``--smoke``."""
    found = sorted(EXAMPLES.glob("*.py"))
    assert [path.name[:2] for path in found] == [f"{k + 1:02d}" for k in range(len(found))]
    for path in found:
        header = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        calls = [line for line in header.splitlines() if f"python md_examples/{path.name}" in line]
        assert any("--smoke" in call for call in calls), path.name
        assert any("--smoke" not in call for call in calls), path.name
        assert "prints" in header.lower(), path.name
        # and a test of it stands above
        assert f'"{path.name}"' in Path(__file__).read_text(encoding="utf-8")
