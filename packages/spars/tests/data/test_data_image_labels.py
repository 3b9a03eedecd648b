"""Image-level labels: from a table, or from voxels when asked."""

from __future__ import annotations

import pytest

from spars.data.image_labels import labels_from_voxels, read_image_labels, tumour_volumes
from spars.data.layout import Case, find_cases
from spars.errors import DataError
from spars.synthetic import write_synthetic


def test_table_and_voxels_agree(tmp_path):
    written = write_synthetic(tmp_path, 5, 1, 0, size=(16, 16, 12))
    cases = find_cases(tmp_path)
    assert read_image_labels(tmp_path / "labels.csv", cases[1:4]) == {
        name: written.labels[name] for name in ("liver_1", "liver_2", "liver_3")
    }
    assert labels_from_voxels(cases) == written.labels
    millilitres = tumour_volumes(cases)
    assert {name: int(ml > 0) for name, ml in millilitres.items()} == written.labels
    # 150 of 48×48×32 voxels at least, of a field of view of 16×16×12 mm.
    assert min(ml for ml in millilitres.values() if ml) > 0.9 * 150 / (48 * 48 * 32) * 16 * 16 * 12 / 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,label\na,1\n", r"no row for 1 of 2 cases \(b\); its 1 rows name a"),
        ("case,label\na,1\nb,0\na,0\n", r"labels\.csv:4: column 'case': 'a' is already in row 2"),
        ("case,label\na,1\nb,2\n", r"labels\.csv:3: column 'label': expected one of \['0', '1'\], found '2'"),
        ("case,label\na,1\nb,\n", r"labels\.csv:3: column 'label': the cell is empty"),
        ("case,tumour\na,1\nb,0\n", r"labels\.csv:1: required columns \['label'\]"),
        (None, "no table of image-level labels"),
    ],
)
def test_faults(tmp_path, text, message):
    if text is not None:
        (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_image_labels(tmp_path / "labels.csv", [Case("a", tmp_path), Case("b", tmp_path)])


def test_no_voxels_no_label(tmp_path):
    with pytest.raises(DataError, match="case 'a' has no voxel labels"):
        labels_from_voxels([Case("a", tmp_path / "a.nii")])
