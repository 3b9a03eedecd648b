"""Where volumes lie: both layouts, their order, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spars.data.layout import Case, find_cases, find_test_images, named_case, natural_key
from spars.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_numbers_sort_as_numbers():
    names = ["liver_10", "liver_9", "a", "liver_9b", "liver_09", "10", "liver_1_2"]
    assert sorted(names, key=natural_key) == [
        "10",
        "a",
        "liver_1_2",
        "liver_9",
        "liver_09",
        "liver_9b",
        "liver_10",
    ]


def test_decathlon_layout_pairs_by_name_and_leaves_other_files_alone(tmp_path):
    touch(tmp_path, "imagesTr/liver_10.nii.gz", "labelsTr/liver_10.nii.gz", "imagesTr/liver_2.nii")
    touch(tmp_path, "labelsTr/liver_2.nii.gz", "imagesTr/liver_3.nii.gz", "imagesTs/liver_131.nii.gz")
    touch(tmp_path, "labelsTr/._liver_2.nii.gz", "labelsTr/notes.txt", "imagesTr/._liver_2.nii")
    assert find_cases(tmp_path) == [
        Case("liver_2", tmp_path / "imagesTr/liver_2.nii", tmp_path / "labelsTr/liver_2.nii.gz"),
        Case("liver_3", tmp_path / "imagesTr/liver_3.nii.gz"),
        Case("liver_10", tmp_path / "imagesTr/liver_10.nii.gz", tmp_path / "labelsTr/liver_10.nii.gz"),
    ]
    assert find_test_images(tmp_path) == [Case("liver_131", tmp_path / "imagesTs/liver_131.nii.gz")]
    assert named_case(find_cases(tmp_path), "liver_3").label is None


def test_generic_layout_with_and_without_a_table(tmp_path):
    touch(tmp_path, "images/b.nii.gz", "labels/b.nii.gz", "images/a/1.dcm", "elsewhere/x.nii")
    assert [(case.name, case.image.name, case.patient) for case in find_cases(tmp_path)] == [
        ("a", "a", "a"),
        ("b", "b.nii.gz", "b"),
    ]
    (tmp_path / "cases.csv").write_text(
        "case,image,label,split,tumour,patient\nb,,,train,1,p1\nc,elsewhere/x.nii,labels/b.nii.gz,,,\n"
    )
    b, c = find_cases(tmp_path)
    assert b == Case("b", tmp_path / "images/b.nii.gz", tmp_path / "labels/b.nii.gz", "train", 1, "p1")
    assert c == Case("c", tmp_path / "elsewhere/x.nii", tmp_path / "labels/b.nii.gz")
    assert c.patient == "c"


@pytest.mark.parametrize(
    ("files", "table", "message"),
    [
        ([], None, r"expected imagesTr/ and labelsTr/.*found an empty folder"),
        (["readme.txt"], None, r"found readme\.txt"),
        (["imagesTr/notes.txt"], None, "no volumes"),
        (["labelsTr/a.nii"], None, r"imagesTr: no such folder, but labelsTr is there"),
        (
            ["imagesTr/a.nii", "labelsTr/b.nii", "labelsTr/c.nii"],
            None,
            r"labelsTr/b\.nii and 1 more: no image .*imagesTr/b\.nii\.gz",
        ),
        (["images/a.nii", "images/a.nii.gz"], None, r"a\.nii and a\.nii\.gz are one case twice"),
        (["images/a.nii"], "case\na\nb\n", r"cases\.csv:3: case 'b': no image"),
        (["images/a.nii"], "case,label\na,labels/a.nii\n", r"cases\.csv:2: case 'a': no label"),
        (["images/a.nii"], "case\na\na\n", r"cases\.csv:3: column 'case'.*already in row 2"),
        (["images/a.nii"], "name\na\n", r"required columns \['case'\] are missing"),
        (["images/a.nii"], "case,split\na,training\n", r"cases\.csv:2: column 'split': expected one of"),
        (["images/a.nii"], "case,tumour\na,2\n", r"cases\.csv:2: column 'tumour': expected at most 1"),
    ],
)
def test_faults(tmp_path, files, table, message):
    touch(tmp_path, *files)
    if table:
        (tmp_path / "cases.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        find_cases(tmp_path)


def test_missing_folders_and_names(tmp_path):
    with pytest.raises(DataError, match="gone: no such folder; data_dir must hold"):
        find_cases(tmp_path / "gone")
    with pytest.raises(DataError, match="data_dir is not set"):
        find_cases(None)
    with pytest.raises(DataError, match="imagesTs: no such folder"):
        find_test_images(tmp_path)
    with pytest.raises(DataError, match="no case 'liver_5'; there are 1: a"):
        named_case([Case("a", tmp_path)], "liver_5")
