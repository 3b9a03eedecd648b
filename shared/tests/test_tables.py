from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medshared.tables import Column, TableError, read_jsonl, read_table, write_jsonl, write_table

COLUMNS = [
    Column("file", unique=True),
    Column("label", "category", choices=("infected", "uninfected")),
    Column("hours", "float", minimum=0, maximum=100),
    Column("frame", "int", required=False, minimum=0),
    Column("keep", "bool", required=False),
]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_cells_get_their_types(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv", "file,label,hours,frame,keep,extra\na,infected,1.5,3,yes,x\nb,uninfected,2,,,y\n"
    )
    frame = read_table(path, COLUMNS)
    assert frame["hours"].tolist() == [1.5, 2.0]
    assert frame["frame"][0] == 3
    assert pd.isna(frame["frame"][1])
    assert frame["keep"][0]
    assert frame["extra"].tolist() == ["x", "y"]


def test_byte_order_mark_blanks_and_empty_lines_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "\ufefffile, label ,hours\n\n a ,infected, 1\n")
    frame = read_table(path, COLUMNS)
    assert frame["file"].tolist() == ["a"]
    assert "frame" not in frame


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("file,label\na,infected\n", r":1: required columns \['hours'\] are missing"),
        ("file,file,label,hours\n", r"names \['file'\] more than once"),
        ("file,label,hours\na,infected\n", ":2: 2 cells where the header names 3"),
        ("file,label,hours\na,infected,one\n", ":2: column 'hours': expected a number, found 'one'"),
        ("file,label,hours\na,infected,-1\n", ":2: column 'hours': expected at least 0, found '-1'"),
        ("file,label,hours\na,infected,101\n", ":2: column 'hours': expected at most 100"),
        ("file,label,hours\na,infected,nan\n", ":2: column 'hours': expected a number, found 'nan'"),
        ("file,label,hours\n\na,sick,1\n", ":3: column 'label': expected one of .*'infected'.* found 'sick'"),
        ("file,label,hours\n,infected,1\n", ":2: column 'file': the cell is empty"),
        ("file,label,hours\na,infected,1\na,infected,2\n", ":3: column 'file': 'a' is already in row 2"),
        ("file,label,hours,frame\na,infected,1,2.5\n", ":2: column 'frame': expected a whole number"),
        ("file,label,hours,keep\na,infected,1,maybe\n", ":2: column 'keep': expected true or false"),
    ],
)
def test_faults_name_file_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(TableError, match=message) as error:
        read_table(path, COLUMNS)
    assert "bad.csv" in str(error.value)


def test_all_faults_are_listed_up_to_ten(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "hours\n" + "x\n" * 14)
    with pytest.raises(TableError, match="… and 4 more") as error:
        read_table(path, [Column("hours", "float")])
    assert str(error.value).count("expected a number") == 10


def test_extra_columns_can_be_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "hours,oops\n1,2\n")
    with pytest.raises(TableError, match=r"unknown columns \['oops'\]"):
        read_table(path, [Column("hours", "float")], allow_extra=False)


def test_foreign_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("hours\nµ\n".encode("latin-1"))
    with pytest.raises(TableError, match="not UTF-8"):
        read_table(path, [Column("hours")])


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        read_table(tmp_path / "gone.csv", COLUMNS)
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl"):
        read_jsonl(tmp_path / "gone.jsonl")


def test_category_without_choices_is_refused() -> None:
    with pytest.raises(ValueError, match="needs choices"):
        Column("label", "category")


def test_table_survives_writing_and_reading(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": ["a,b", 'c"d'], "value": [0.1, 1 / 3]})
    path = write_table(tmp_path / "new" / "t.csv", frame)
    read = read_table(path, [Column("name"), Column("value", "float")])
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)
    assert [p.name for p in path.parent.iterdir()] == ["t.csv"]


def test_rows_can_be_written_without_a_frame(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", [{"a": 1, "b": None}, {"a": 2, "b": 3.0}])
    assert path.read_text() == "a,b\n1,\n2,3.0\n"


def test_jsonl_survives_writing_and_reading(tmp_path: Path) -> None:
    rows = [{"path": Path("x.tiff"), "hours": np.float64(0.5), "auc": float("nan")}, {"µ": [1, 2]}]
    path = write_jsonl(tmp_path / "m.jsonl", rows)
    assert read_jsonl(path) == [{"path": "x.tiff", "hours": 0.5, "auc": None}, {"µ": [1, 2]}]


@pytest.mark.parametrize(
    ("line", "message"), [('{"a": 1', ":2: not JSON"), ("[1]", ":2: expected an object")]
)
def test_bad_json_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "m.jsonl", '{"a": 0}\n' + line + "\n")
    with pytest.raises(TableError, match=message):
        read_jsonl(path)
