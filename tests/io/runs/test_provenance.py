import json

import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import read, write
from matplotlib.figure import Figure

from pet_calc.io.runs.figures import save_figure
from pet_calc.io.runs.provenance import (
    image_metadata,
    json_text,
    provenance,
    record_of,
    settings_toml,
    stamp,
)
from pet_calc.io.runs.summaries import summarize

#: Characters that each of the formats treats in a way of its own.
HARD = ["pet-calc", "md", 'a "b" \\n.xyz', "100%", "it's", "é", "{x}", "[1]", "a=b"]


@pytest.fixture
def origin():
    return provenance(EMT(), seed=3, command=HARD)


def test_what_is_recorded(origin):
    assert origin["seed"] == 3
    assert origin["calculator"] == "ase.calculators.emt.EMT"
    assert {"pet_calc", "ase", "numpy", "torch"} <= set(origin["versions"])


@pytest.mark.parametrize("name", ["a.extxyz", "a.traj", "a.json"])
def test_structures_keep_the_record(origin, name, tmp_path):
    atoms = Atoms("Cu", cell=[3, 3, 3], pbc=True)
    assert record_of(atoms) is None
    stamp(atoms, origin)
    assert record_of(atoms) == origin
    if name.endswith("json"):
        return
    write(tmp_path / name, [atoms, atoms])
    assert record_of(read(tmp_path / name, index=0)) == origin
    assert summarize(tmp_path / name).origin == origin


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_figures_keep_the_record(origin, suffix, tmp_path):
    figure = Figure(figsize=(1, 1))
    path = save_figure(figure, tmp_path / f"a{suffix}", origin)
    if suffix == ".png":
        assert summarize(path).origin == origin
    else:
        # PDF has text outside of Latin-1 in UTF-16
        assert any("pet-calc".encode(c) in path.read_bytes() for c in ("utf-8", "utf-16-be"))
    assert summarize(save_figure(figure, tmp_path / "b.png")).origin is None


def test_a_format_without_metadata_is_refused(origin):
    with pytest.raises(ValueError, match=r"must be \.png"):
        image_metadata(origin, ".jpg")


def test_results_and_settings_keep_the_record(origin, tmp_path):
    (tmp_path / "a.json").write_text(json_text({"x": 1.5, "list": [1, 2]}, origin))
    found = summarize(tmp_path / "a.json")
    assert found.origin == json.loads((tmp_path / "a.json").read_text())["provenance"] == origin
    assert found.facts == {"x": 1.5, "list": [1, 2]}
    (tmp_path / "run.toml").write_text(settings_toml("run", {"fmax": 0.1}, origin))
    assert summarize(tmp_path / "run.toml").origin == origin
    (tmp_path / "table.csv").write_text("x,name\n1,a\n3,b\nnan,\n")
    table = summarize(tmp_path / "table.csv")
    assert table.facts == {"rows": 3, "x": "1 to 3", "name": "a, b"}
    assert table.origin == origin
    assert table.source == "run.toml beside it"
