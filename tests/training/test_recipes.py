"""The recipes beside the shipped models can be run with the files that are there."""

import pytest

from pet_calc.crystals.training.generator import GeneratorConfig
from pet_calc.crystals.training.property_config import PropertyTraining
from pet_calc.pretrained import list_potentials
from pet_calc.training.core.config_reader import read_toml
from pet_calc.training.potentials.config import TrainConfig

ROOT = list_potentials()[0].folder.parent
RECIPES = sorted(ROOT.glob("*/train*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_recipe_is_complete(path):
    """It can be read, and begins from nothing or from the result of a recipe beside it."""
    values = read_toml(path)
    if "property" in values:
        PropertyTraining.from_dict(values)
    elif "files" in values:
        assert GeneratorConfig.from_dict(values).occupancy is not None
    else:
        TrainConfig.from_dict(values)
    before = values.get("fine_tune", {}).get("from")
    number = int(path.stem.removeprefix("train-")) if path.stem != "train" else None
    names = {p: read_toml(p)["name"] for p in sorted(path.parent.glob("train-*.toml"))}
    if number == 1 or not names:
        assert before is None
        return
    earlier = path.parent / f"train-{(number or len(names) + 1) - 1}.toml"
    assert before == f"runs/{names[earlier]}/model"
