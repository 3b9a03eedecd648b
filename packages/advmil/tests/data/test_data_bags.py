"""Bags of patients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advmil.config import Config
from advmil.data.bags import BagSource
from advmil.data.tables import read_cohort
from advmil.errors import DataError
from medshared.bags import BagAttributes, write_clam_bag

WIDTH = 6
TABLE = "pathology_id,patient_id,e,t\na1,A,1,20\nb1,B,0,30\na2,A,1,20\n"
LENGTHS = {"a1": 32, "a2": 16, "b1": 48}


def features(slide: str, n: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(sum(map(ord, slide)))
    return rng.normal(size=(LENGTHS[slide] if n is None else n, WIDTH)).astype(np.float32)


def grid(n: int) -> np.ndarray:
    return np.stack(np.divmod(np.arange(n), 7), axis=1) * 512


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(TABLE)
    for slide, n in LENGTHS.items():
        write_clam_bag(tmp_path, slide, features(slide), grid(n))
    return tmp_path


def source(folder: Path, **keys: Any) -> BagSource:
    defaults = {"path_patch": str(folder / "pt_files"), "bcb_dims": f"{WIDTH}-8-8", "num_workers": 0}
    return BagSource(Config(**(defaults | keys)), read_cohort(folder / "t.csv"))


def test_a_bag_holds_the_slides_in_the_order_of_the_table(folder: Path) -> None:
    bag = source(folder).load("A")
    assert bag.extra is None
    assert bag.x.dtype == torch.float32
    assert np.array_equal(bag.x[0].numpy(), np.concatenate([features("a1"), features("a2")]))


def test_h5_and_half_precision_give_the_same_bag(folder: Path, tmp_path: Path) -> None:
    write_clam_bag(tmp_path / "half", "b1", features("b1"), grid(48), half=True)
    expected = source(folder).load("B").x
    assert torch.equal(
        source(folder, path_patch=str(folder / "h5_files"), feat_format="h5").load("B").x, expected
    )
    half = source(folder, path_patch=str(tmp_path / "half" / "pt_files")).load("B").x
    assert half.dtype == torch.float32
    assert torch.allclose(half, expected, atol=2e-3)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_reading_ahead_keeps_the_order(folder: Path, workers: int) -> None:
    bags = source(folder, num_workers=workers)
    order = ["B", "A", "B", "A", "A"]
    found = list(bags.iterate(order))
    assert [patient for patient, _ in found] == order
    assert all(torch.equal(bag.x, bags.load(patient).x) for patient, bag in found)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_bag_is_named_when_its_turn_comes(folder: Path, workers: int) -> None:
    (folder / "pt_files" / "b1.pt").unlink()
    turns = source(folder, num_workers=workers).iterate(["A", "B"])
    assert next(turns)[0] == "A"
    with pytest.raises(DataError, match=r"patient B: .*b1.pt: no such file"):
        next(turns)


def test_memory_holds_the_bags_used_last_within_its_limit(folder: Path) -> None:
    size = 48 * WIDTH * 4
    bags = source(folder, cache_features_gb=1.5 * size / 2**30)
    first = bags.load("A")
    assert bags.load("A") is first
    bags.load("B")
    assert bags.cached_bytes == size
    again = bags.load("A")
    assert again is not first
    assert torch.equal(again.x, first.x)
    nothing = source(folder, cache_features_gb=0)
    assert nothing.load("A") is not nothing.load("A")


def test_ordinary_patches_are_regrouped_by_their_coordinates(folder: Path) -> None:
    write_clam_bag(folder, "b1", features("b1", 21), grid(21))
    with pytest.raises(DataError, match=r"patient B: .*b1.pt: 21 patches are no whole number of regions"):
        source(folder).load("B")
    for keys in ({}, {"path_patch": str(folder / "h5_files"), "feat_format": "h5"}):
        bags = source(folder, regions="coordinates", **keys)
        layout = bags.layout("B")
        assert layout.coordinates is not None
        assert np.array_equal(layout.coordinates, grid(21)[layout.row])
        squares = (layout.coordinates // 2048).reshape(-1, 16, 2)
        assert (squares == squares[:, :1]).all()
        assert np.array_equal(bags.load("B").x[0].numpy(), features("b1", 21)[layout.row])
        assert set(layout.row.tolist()) == set(range(21))


def test_plain_regions_need_no_coordinates(folder: Path) -> None:
    torch.save(torch.from_numpy(features("b1", 21)), folder / "pt_files" / "b1.pt")
    (folder / "h5_files" / "b1.h5").unlink()
    assert source(folder, regions="plain").load("B").x.shape == (1, 32, WIDTH)
    with pytest.raises(DataError, match="has no coordinates to make regions of: set feat_format: h5"):
        source(folder, regions="coordinates").load("B")
    # Without discriminator and region embedding, nothing is grouped.
    assert source(folder, bcb_mode="abmil", task="surv_cox").load("B").x.shape == (1, 21, WIDTH)


def test_cluster_numbers_come_along(folder: Path) -> None:
    clusters = folder / "clusters"
    clusters.mkdir()
    np.save(clusters / "A.npy", (np.arange(48) % 8).astype(np.int32))
    keys = {"bcb_mode": "cluster", "path_cluster": str(clusters)}
    extra = source(folder, **keys).load("A").extra
    assert extra is not None
    assert extra.tolist() == [k % 8 for k in range(48)]
    coordinates = source(folder, regions="coordinates", **keys)
    bag, layout = coordinates.load("A"), coordinates.layout("A")
    assert bag.extra is not None
    place = np.where(layout.slide_index == 0, 0, LENGTHS["a1"]) + layout.row
    assert bag.extra.tolist() == (place % 8).tolist()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (np.zeros(40, np.int32), "has 40 cluster numbers but the slides have 48 patches"),
        (np.full(48, 8), "must be whole, from 0 to 7"),
        (np.full(48, -1), "must be whole, from 0 to 7"),
        (np.zeros(48, dtype=object), "not a whole npy file of numbers"),
        (None, "no such file of clusters"),
    ],
)  # fmt: skip
def test_unusable_clusters_are_named(folder: Path, numbers: np.ndarray | None, message: str) -> None:
    if numbers is not None:
        np.save(folder / "A.npy", numbers)
    with pytest.raises(DataError, match=message):
        source(folder, bcb_mode="cluster", path_cluster=str(folder)).load("A")


def graph(n: int, width: int = WIDTH) -> dict[str, torch.Tensor]:
    edges = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
    return {
        "x": torch.ones(n, width),
        "edge_index": edges,
        "edge_latent": edges,
        "centroid": torch.zeros(n, 2),
    }


def test_graphs_of_several_slides_are_joined(folder: Path) -> None:
    graphs = folder / "graphs"
    graphs.mkdir()
    for slide, n in LENGTHS.items():
        torch.save(graph(n), graphs / f"{slide}.pt")
    bags = source(folder, bcb_mode="graph", path_graph=str(graphs))
    bag = bags.load("A")
    assert bag.extra is not None
    assert bag.x.shape == (1, 48, WIDTH)
    assert bag.extra[:, 32].tolist() == [32, 33]
    assert bags.layout("A").slide_index.tolist() == [0] * 32 + [1] * 16
    assert bags.check(["A", "B"]) == []
    torch.save(graph(20), graphs / "b1.pt")
    assert "20 patches are no whole number of regions" in bags.check(["B"])[0]
    with pytest.raises(DataError, match="regions: plain does not suit the backbone graph"):
        source(folder, bcb_mode="graph", path_graph=str(graphs), regions="plain")


def test_a_good_folder_has_no_problems(folder: Path) -> None:
    assert source(folder).check(["A", "B"]) == []


def test_all_problems_are_listed(folder: Path) -> None:
    (folder / "t.csv").write_text(TABLE + "c1,C,1,5\nd1,D,1,5\ne1,E,1,5\nf1,F,0,9\ng1,G,0,9\n")
    holed = features("b1")
    holed[2] = np.nan
    tensors = {
        "b1": holed,
        "c1": features("b1", 20),
        "d1": features("b1")[:, :3],
        "e1": features("b1")[:0],
        "x9": features("b1"),
    }
    for slide, values in tensors.items():
        torch.save(torch.from_numpy(values), folder / "pt_files" / f"{slide}.pt")
    (folder / "pt_files" / "f1.pt").write_bytes((folder / "pt_files" / "a1.pt").read_bytes()[:500])
    problems = "\n".join(source(folder).check(["A", "B", "C", "D", "E", "F", "G", "Z"]))
    for expected in (
        "patient B: .*1 of 48 rows hold NaN",
        "patient C: .*20 patches are no whole number of regions",
        "patient D: .*has 3 features a patch but bcb_dims starts with 6",
        "patient E: .*the bag is empty",
        "patient F: .*cut off after 500 bytes",
        "patient G: .*g1.pt: no such file",
        "patient Z is not in .*t.csv",
        r"has 1 slides without a patient in .* \(x9\)",
    ):
        assert re.search(expected, problems), expected
    assert len(problems.splitlines()) == 8


def test_mixtures_of_encoders_are_a_problem(folder: Path) -> None:
    write_clam_bag(folder, "a1", features("a1"), grid(32), BagAttributes(encoder="uni"))
    write_clam_bag(folder, "b1", features("b1"), grid(48), BagAttributes(encoder="conch"))
    bags = source(folder, path_patch=str(folder / "h5_files"), feat_format="h5")
    assert "must not be mixed" in bags.check(["A", "B"])[0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"path_patch": ""}, "path_patch is not set"),
        ({"path_patch": "/nowhere"}, "path_patch: /nowhere is no folder"),
        ({"bcb_mode": "graph"}, "path_graph is not set: the backbone graph needs it"),
        ({"bcb_mode": "cluster"}, "path_cluster is not set"),
    ],
)  # fmt: skip
def test_folders_must_be_there(folder: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        source(folder, **keys)


def test_a_single_patch_is_a_bag_where_nothing_is_grouped(folder: Path) -> None:
    torch.save(torch.from_numpy(features("b1", 1)), folder / "pt_files" / "b1.pt")
    assert source(folder, bcb_mode="abmil", task="surv_reg").load("B").x.shape == (1, 1, WIDTH)
    with pytest.raises(DataError, match="1 patches are no whole number of regions"):
        source(folder).load("B")
