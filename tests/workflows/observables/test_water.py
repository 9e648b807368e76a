from ase.build import bulk

from pet_calc.workflows.observables import SKINNER_2013, water_structure
from pet_calc.workflows.observables.water import is_water
from pet_calc.workflows.water_box import water_box


def test_water_box_has_the_structure_of_water():
    frames = [water_box(32, seed=seed) for seed in range(3)]
    water = water_structure(frames)
    assert abs(water.first_peak.position - SKINNER_2013.position) < 0.15
    inside = water.g_OH.r < 1.2
    assert abs(water.g_OH.r[inside][water.g_OH.g[inside].argmax()] - 0.98) < 0.05
    assert water.g_OO.g[water.g_OO.r < 2.2].max() == 0.0


def test_water_is_told_from_other_matter():
    box = water_box(8, sweeps=0)
    assert is_water(box)
    assert not is_water(bulk("Cu"))
    assert not is_water(box[:-1])
    box.pbc = (True, True, False)
    assert not is_water(box)
