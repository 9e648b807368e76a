import pytest

from pet_calc.errors import OutputError
from pet_calc.io.runs.outputs import claim_folder, clear_folder


def test_folder_is_made_and_left_clean(tmp_path):
    folder = claim_folder(tmp_path / "a" / "b", ["x.csv"])
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_existing_files_are_refused_and_kept(tmp_path):
    (tmp_path / "x.csv").write_text("old")
    with pytest.raises(OutputError, match=r"already holds x\.csv"):
        claim_folder(tmp_path, ["x.csv", "y.csv"])
    claim_folder(tmp_path, ["x.csv", "y.csv"], overwrite=True)
    assert (tmp_path / "x.csv").read_text() == "old"
    clear_folder(tmp_path, ["x.csv", "y.csv"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_file_in_the_way_is_refused(path, tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(OutputError, match="must be writable"):
        claim_folder(tmp_path / path, [])
    assert (tmp_path / "file").read_text() == "here"
