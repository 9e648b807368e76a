import json
import shutil

import pytest
from ase.io import write
from workflows.report.browser import visit

from pet_calc.io.runs.provenance import settings_toml
from pet_calc.workflows.report import report_folder

PROVENANCE = {"command": "pet-calc relax x.cif", "versions": {"ase": "3.29"}}


@pytest.fixture
def relax_folder(tmp_path, frames):
    folder = tmp_path / "relaxed"
    folder.mkdir()
    (folder / "relax.toml").write_text(settings_toml("s", {"fmax": 0.01}, PROVENANCE))
    write(folder / "relaxed.extxyz", frames[:2])
    (folder / "relax.csv").write_text(
        "file,status,reason,fmax_eV_per_A\na.cif,converged,,0.0012345678\nb.cif,steps,cap,2\n"
    )
    return folder


@pytest.fixture
def phonons_folder(tmp_path, frames, md_folder):
    folder = tmp_path / "phonons"
    folder.mkdir()
    (folder / "phonons.toml").write_text(settings_toml("s", {"supercell": [2, 2, 2]}, PROVENANCE))
    write(folder / "primitive.extxyz", frames[0])
    shutil.copy(md_folder / "md.png", folder / "phonons.png")
    (folder / "phonons.json").write_text(
        json.dumps({"space_group": "Fd-3m", "largest": {"THz": 15.1}, "all": list(range(100))})
    )
    (folder / "points.csv").write_text("label,frequency_THz\nΓ,15.09\nX,12.05\n")
    return folder


def test_md(md_folder, tmp_path):
    path = report_folder(md_folder, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert "Molecular dynamics of H2O" in text
    assert "a &lt;b&gt; &amp; c" in text
    for part in ("±", "meV/atom/ps", "data:image/png", "Provenance", "versions.pet_calc"):
        assert part in text
    assert not (md_folder / "report.html").exists()
    seen = visit(path, tmp_path)
    assert seen.console == []
    assert seen.requests == []
    assert 'data-viewer="ready"' in seen.dom


def test_relax(relax_folder):
    text = report_folder(relax_folder).read_text(encoding="utf-8")
    assert "Relaxation of 2 structures" in text
    for part in ("converged", "0.00123457", "<td>2</td>", "pet-calc relax x.cif"):
        assert part in text


def test_phonons(phonons_folder):
    text = report_folder(phonons_folder, viewer=False).read_text(encoding="utf-8")
    for part in ("Phonons of H2O", "Fd-3m", "largest.THz", "15.09", "data:image/png"):
        assert part in text
    assert "<script" not in text
    assert "[0, 1, 2" not in text


def test_other_verbs_show_what_they_left(tmp_path):
    folder = tmp_path / "eos"
    folder.mkdir()
    (folder / "eos.toml").write_text('model = "x"\n')
    (folder / "eos.csv").write_text("volume_A3,energy_eV\n10,-3\n")
    text = report_folder(folder).read_text(encoding="utf-8")
    assert "volume_A3" in text


def test_what_is_no_output_is_refused(tmp_path, md_folder, relax_folder):
    with pytest.raises(ValueError, match="there is no folder"):
        report_folder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="recognized by its settings file"):
        report_folder(tmp_path)
    shutil.copy(md_folder / "md.toml", relax_folder)
    with pytest.raises(ValueError, match="output of several verbs"):
        report_folder(relax_folder)
    (relax_folder / "relax.toml").unlink()
    with pytest.raises(ValueError, match="the run did not finish"):
        report_folder(relax_folder)
    (relax_folder / "md.toml").write_text("a = = b")
    with pytest.raises(ValueError, match="malformed"):
        report_folder(relax_folder)
    assert not (relax_folder / "report.html").exists()
