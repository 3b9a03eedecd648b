"""Names, scores and annotations of the download."""

import json

import numpy as np
import pytest

from medshared.tables import TableError
from til_mtl.data.asap import read_asap
from til_mtl.data.tiger import parse_region_name, patient_of, read_cell_boxes, read_til_scores, source_of
from til_mtl.errors import DataError


@pytest.mark.parametrize(
    ("slide", "source", "patient"),
    [
        ("TCGA-A1-A0SK-01Z-00-DX1.A44D70FA-4D96-43F4-9DD7-A61535786297", "TCGA", "TCGA-A1-A0SK"),
        ("TC_S01_P000004_C0001_B103", "RUMC", "TC_S01_P000004"),
        ("104S", "JB", "JB-104"),
        ("104B", "JB", "JB-104"),
        ("scan17", "other", "scan17"),
    ],
)
def test_slides_tell_source_and_patient(slide, source, patient):
    assert source_of(slide) == source
    assert patient_of(slide) == patient
    name = parse_region_name(f"{slide}_[10, 20, 110, 320]")
    assert name == (slide, 10, 20, 100, 300)


@pytest.mark.parametrize("name", ["104S", "104S_[1, 2, 3]", "104S_[5, 2, 3, 9]"])
def test_other_names_are_refused(name):
    with pytest.raises(DataError, match=r"regions are named|the rectangle is empty"):
        parse_region_name(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "image-id,tils-score\n104S,35\nTC_S01_P000004_C0001_B103.tif,0\n"),
        ("b.csv", "image-id,tils-scores\n104S.tif,35.0\nTC_S01_P000004_C0001_B103,0\n"),
        ("c.xml", "<s><i image-id='104S' tils-score='35'/><i image-id='TC_S01_P000004_C0001_B103' tils-score='0'/></s>"),
        ("d.xml", "<s><i><image-id>104S</image-id><tils-scores> 35 </tils-scores></i><i image-id='TC_S01_P000004_C0001_B103'><tils-score>0</tils-score></i></s>"),
    ],
)  # fmt: skip
def test_scores_in_every_form(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_til_scores(tmp_path / name) == {"104S": 35.0, "TC_S01_P000004_C0001_B103": 0.0}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "image-id,score\n104S,35\n", r"a\.csv:1: expected the columns image-id and tils-score, found"),
        ("a.csv", "slide,tils-score\n104S,35\n", r"required columns \['image-id'\] are missing"),
        ("a.csv", "image-id,tils-score\n104S,105\n", r":2: column 'tils-score': expected at most 100, found '105'"),
        ("a.csv", "image-id,tils-score\n104S,35\n105S,\n", r":3: column 'tils-score' is empty: leave out slides"),
        ("a.csv", "image-id,tils-score\n104S,35\n104S.tif,4\n", r"slide '104S' is given twice"),
        ("a.csv", "image-id,tils-score\n", r"no scores"),
        ("a.xml", "<s><i image-id='1' tils-score='many'/></s>", r"slide '1': expected a number, found 'many'"),
        ("a.xml", "<s><i image-id='1' tils-score='-4'/></s>", r"score of -4: expected 0 to 100"),
        ("a.xml", "<s/>", r"no scores: expected image-id and tils-score"),
        ("a.xml", "<s><i", r"a\.xml: not XML \(.*\); it is damaged or cut off"),
        ("a.xml", "<!DOCTYPE s [<!ENTITY x 'y'>]><s/>", r"declares a document type or entities"),
    ],
)  # fmt: skip
def test_bad_scores_have_their_message(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises((DataError, TableError), match=message):
        read_til_scores(tmp_path / name)


ASAP = """<?xml version="1.0"?><ASAP_Annotations><Annotations>
<Annotation Name="r" Type="Rectangle" PartOfGroup="roi" Color="#F4FA58"><Coordinates>
<Coordinate Order="2" X="30.5" Y="44" /><Coordinate Order="0" X="10" Y="20" />
<Coordinate Order="1" X="30.5" Y="20" /><Coordinate Order="3" X="10" Y="44" /></Coordinates></Annotation>
<Annotation Name="c" Type="Dot" PartOfGroup="Lymphocytes and plasma cells"><Coordinates>
<Coordinate Order="0" X="12.5" Y="22" /></Coordinates></Annotation>
<Annotation Name="nothing" Type="Polygon" PartOfGroup="rest"><Coordinates /></Annotation>
</Annotations><AnnotationGroups /></ASAP_Annotations>"""


def test_asap_annotations(tmp_path):
    path = tmp_path / "slide.xml"
    path.write_text(ASAP)
    region, cell = read_asap(path)
    assert (region.name, region.kind, region.group) == ("r", "Rectangle", "roi")
    assert np.array_equal(region.points, [[10, 20], [30.5, 20], [30.5, 44], [10, 44]])
    assert region.bounds == (10, 20, 31, 44)
    assert (cell.group, cell.centre) == ("lymphocytes and plasma cells", (12.5, 22.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ASAP.replace('X="12.5"', 'X="left"'), r"annotation 'c': coordinates need Order, X and Y"),
        (ASAP.replace('X="12.5"', ""), r"annotation 'c': coordinates need Order, X and Y"),
        ("<qupath/>", r"expected <ASAP_Annotations>, found <qupath>"),
        (ASAP[:200], r"not XML"),
    ],
)
def test_bad_annotations_have_their_message(tmp_path, text, message):
    path = tmp_path / "slide.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_asap(path)
    with pytest.raises(DataError, match="no such file"):
        read_asap(tmp_path / "none.xml")


@pytest.mark.parametrize("categories", [[], [{"id": 3, "name": "Lymphocytes and plasma cells"}]])
def test_cell_boxes_and_sizes_by_region(tmp_path, categories):
    images = [
        {"id": 1, "file_name": "tissue-cells/images/a.png", "width": 40, "height": 30},
        {"id": 2, "file_name": "b.png"},
    ]
    annotations = [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}, {"image_id": 2, "bbox": [1, 2]}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "tiger-coco.json").write_text(json.dumps(content))
    table = read_cell_boxes(tmp_path / "tiger-coco.json")
    assert {name: boxes.tolist() for name, boxes in table.boxes.items()} == {"a": [[1, 2, 3, 4]], "b": []}
    assert table.sizes == {"a": (40, 30)}
    assert list(table.problems) == ["b"]
