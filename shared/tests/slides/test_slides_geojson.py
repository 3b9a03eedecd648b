"""GeoJSON as QuPath writes and reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medshared.slides import Contour, GeojsonError, TissueMask, read_geojson, write_geojson

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10]]
HOLE = [[2, 2], [4, 2], [4, 4]]


def polygon(*rings: list[list[Any]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]}


def feature(geometry: object, **properties: object) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def saved(folder: Path, content: object) -> Path:
    path = folder / "a.geojson"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(3, 12), st.integers(3, 12))))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray) -> None:
    contours = TissueMask(mask, (64.0, 32.0)).contours()
    path = tmp_path_factory.getbasetemp() / "round.geojson"
    write_geojson(path, contours, {"slide": "a"})
    found = read_geojson(path)
    assert [each.contour for each in found] == contours
    assert {each.name for each in found} <= {"Tissue"}
    assert all(each.contour.outer.dtype == np.int32 for each in found)


def test_form_that_qupath_reads(tmp_path: Path) -> None:
    contour = Contour(np.array(SQUARE, np.int32), (np.array(HOLE, np.int32),))
    path = write_geojson(
        tmp_path / "a.geojson", [contour], [{"measurements": {"risk": np.float32(0.5)}}], name="Tumor"
    )
    assert json.loads(path.read_text()) == {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": polygon(SQUARE, HOLE),
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": "Tumor", "color": [200, 0, 0]},
                    "measurements": {"risk": 0.5},
                },
            }
        ],
    }
    assert read_geojson(write_geojson(tmp_path / "none.geojson", [])) == []
    with pytest.raises(ValueError, match="1 contours, but properties of 2"):
        write_geojson(path, [contour], [{}, {}])


def test_what_qupath_exports(tmp_path: Path) -> None:
    multi = {
        "type": "MultiPolygon",
        "coordinates": [polygon(SQUARE, HOLE)["coordinates"], polygon(HOLE)["coordinates"]],
    }
    features = [
        feature(polygon([[0.4, 0], [9.6, 0], [10, 10]]), classification={"name": "Stroma"}, isLocked=True),
        feature(multi, classification="Tissue"),
        feature({"type": "Point", "coordinates": [1, 2]}),
        feature(
            {
                "type": "GeometryCollection",
                "geometries": [polygon(SQUARE), {"type": "Point", "coordinates": [0, 0]}],
            }
        ),
        {"type": "Feature", "geometry": polygon(HOLE), "properties": None},
    ]
    for content in ({"type": "FeatureCollection", "features": features}, features):
        found = read_geojson(saved(tmp_path, content))
        assert [each.name for each in found] == ["Stroma", "Tissue", "Tissue", "", ""]
        assert found[0].contour.outer.tolist() == [[0, 0], [10, 0], [10, 10]]
        assert found[0].properties["isLocked"] is True
        assert [len(each.contour.holes) for each in found] == [0, 1, 0, 0, 0]
        assert found[1].contour.holes[0].tolist() == HOLE
    assert len(read_geojson(saved(tmp_path, features[0]))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("{", "a.geojson: line 1"),
        ({"type": "Topology"}, 'expected a GeoJSON FeatureCollection, found {"type": "Topology"}; in QuPath'),
        (5, "FeatureCollection, found 5"),
        ([1], "feature 0: expected a GeoJSON Feature"),
        ([feature(None)], "feature 0: expected a GeoJSON Feature"),
        ([feature(polygon(SQUARE)), feature({"type": "Circle"})], "feature 1: expected a Polygon.*'Circle'"),
        ([feature({"type": "Polygon", "coordinates": []})], "feature 0: the Polygon has no coordinates"),
        ([feature({"type": "Polygon"})], "has no coordinates"),
        ([feature(polygon([[0, 0], [1, 1]]))], "2 different points, expected at least 3"),
        ([feature(polygon([[0], [1, 1], [2, 2]]))], "no list of \\[x, y\\] pairs"),
        ([feature(polygon([["a", 0], [1, 1], [2, 2]]))], "no list of \\[x, y\\] pairs"),
        ([feature(polygon([[1e12, 0], [1, 1], [2, 2]]))], "no pixels of a slide"),
        (
            '[{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[NaN, 0], [1, 1], [2, 2]]]}}]',
            "no pixels",
        ),
    ],
)
def test_broken_files(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(GeojsonError, match=message):
        read_geojson(saved(tmp_path, content))
    with pytest.raises(FileNotFoundError, match="none"):
        read_geojson(tmp_path / "none.geojson")
