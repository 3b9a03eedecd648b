"""Weights: finding, fitting and fetching them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from medshared.weights import (
    WeightsError,
    WeightsSource,
    default_cache_dir,
    extract_state_dict,
    fetch_weights,
    load_state_dict,
)


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


# Finding


@pytest.mark.parametrize("key", ["model_state", "model_state_dict", "state_dict", "model"])
def test_extract_by_key(key: str) -> None:
    state = network().state_dict()
    assert list(extract_state_dict({"epoch": 1, key: state})) == list(state)


def test_first_key_wins_and_bare_mappings_are_accepted() -> None:
    a, b = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    assert extract_state_dict({"model": a, "model_state": b})["w"].item() == 1
    assert extract_state_dict({"ema": a, "model": b}, keys=("ema",))["w"].item() == 0
    assert extract_state_dict({"0.weight": a["w"], "_extra_state": None}).keys() == {
        "0.weight",
        "_extra_state",
    }


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapper_prefixes_are_stripped(prefix: str) -> None:
    state = network().state_dict()
    wrapped = {prefix + key: value for key, value in state.items()}
    assert list(extract_state_dict(wrapped)) == list(state)
    averaged = {"n_averaged": torch.tensor(3), **{"module." + key: value for key, value in state.items()}}
    assert list(extract_state_dict(averaged)) == list(state)


def test_a_prefix_that_some_keys_lack_stays() -> None:
    state = {"module.w": torch.zeros(1), "head.w": torch.zeros(1)}
    assert extract_state_dict(state) == state


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (network(), "expected a checkpoint with a state dictionary, found Sequential"),
        ({"epoch": 1, "config": {}}, "expected one of 'model_state', .*, found 'epoch', 'config'"),
        ({}, "found nothing"),
    ],
)
def test_nothing_to_extract(obj: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        extract_state_dict(obj)


# Fitting


def test_everything_fits() -> None:
    source, target = network(), network()
    report = load_state_dict(target, source.state_dict())
    assert report.ok
    assert report.matched == list(source.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))
    assert report.table().splitlines()[-1] == "7 keys fit"


def misfit() -> dict[str, torch.Tensor]:
    state = dict(network().state_dict())
    del state["1.weight"]
    state["0.weight"] = torch.ones(4, 2)
    state["head.weight"] = torch.ones(2, 4)
    return state


def test_table_of_what_does_not_fit() -> None:
    with pytest.raises(WeightsError, match="the weights do not fit Sequential:\n") as caught:
        load_state_dict(network(), misfit())
    assert str(caught.value).splitlines()[1:] == [
        "  key         | expected | found",
        "missing in the file (1):",
        "  1.weight    | [4]      | -",
        "unexpected in the file (1):",
        "  head.weight | -        | [2, 4]",
        "of another shape (1):",
        "  0.weight    | [4, 3]   | [4, 2]",
        "5 keys fit",
    ]


def test_strict_changes_nothing_and_lenient_loads_the_rest() -> None:
    target, state = network(), misfit()
    state["0.bias"] = torch.full((4,), 7.0)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(WeightsError):
        load_state_dict(target, state)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())
    report = load_state_dict(target, state, strict=False)
    assert (report.missing, report.unexpected) == (["1.weight"], ["head.weight"])
    assert report.reshaped == [("0.weight", (4, 3), (4, 2))]
    assert not report.ok
    assert target[0].bias.tolist() == [7.0] * 4  # type: ignore[union-attr]
    assert torch.equal(target[0].weight, before["0.weight"])  # type: ignore[arg-type]


def test_long_groups_are_cut() -> None:
    state = {f"k{index}": torch.zeros(1) for index in range(100)}
    table = load_state_dict(network(), state, strict=False).table()
    assert "unexpected in the file (100):" in table
    assert "… and 60 more" in table
    assert "k39 " in table
    assert "k40" not in table


def test_renaming() -> None:
    source, target = network(), network()
    state = {f"net.{key}": value for key, value in source.state_dict().items()} | {"fc.bias": torch.ones(2)}
    report = load_state_dict(
        target, state, rename=lambda key: key.removeprefix("net.") if key.startswith("net.") else None
    )
    assert report.ok
    with pytest.raises(
        WeightsError, match=r"keys 'net\.0\.weight' and 'net\.0\.bias' are both renamed to 'x'"
    ):
        load_state_dict(target, state, rename=lambda _key: "x")


# Fetching

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "w e.pt").write_bytes(CONTENT)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/w%20e.pt"
        server.shutdown()
        thread.join()


def source(url: str, sha256: str = SHA256) -> WeightsSource:
    return WeightsSource("toy", url, sha256, "toy.pt")


def test_download_over_http_once(served: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = fetch_weights(source(served), cache, allow_download=True)
    assert path == cache / "toy.pt"
    assert path.read_bytes() == CONTENT
    assert fetch_weights(source("http://127.0.0.1:9/gone.pt", SHA256.upper()), cache) == path
    assert [entry.name for entry in cache.iterdir()] == ["toy.pt"]


def test_file_url(tmp_path: Path) -> None:
    (tmp_path / "a b.pt").write_bytes(CONTENT)
    path = fetch_weights(source((tmp_path / "a b.pt").as_uri()), tmp_path / "cache", allow_download=True)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["http", "file"])
def test_wrong_checksum_leaves_no_file(served: str, tmp_path: Path, kind: str) -> None:
    url = served if kind == "http" else (tmp_path / "served" / "w e.pt").as_uri()
    with pytest.raises(
        WeightsError, match=r"weights 'toy': downloading .* failed: SHA256 hash of downloaded file"
    ):
        fetch_weights(source(url, "0" * 64), tmp_path / "cache", allow_download=True)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("kind", ["http", "file"])
def test_source_that_is_gone(served: str, tmp_path: Path, kind: str) -> None:
    url = served + "x" if kind == "http" else (tmp_path / "no.pt").as_uri()
    with pytest.raises(WeightsError, match=r"downloading .* failed: .*Put the file with SHA-256"):
        fetch_weights(source(url), tmp_path / "cache", allow_download=True)
    assert list((tmp_path / "cache").iterdir()) == []


def test_not_cached_and_not_allowed(served: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(WeightsError) as caught:
        fetch_weights(source(served), cache)
    message = str(caught.value)
    assert f"{cache / 'toy.pt'} is not in the cache" in message
    assert f"Put the file with SHA-256 {SHA256} there, or pass --allow-download to download it" in message
    assert not cache.exists()


def test_wrong_file_in_the_cache(served: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "toy.pt").write_bytes(b"old")
    with pytest.raises(WeightsError, match=r"toy\.pt has the wrong SHA-256 [0-9a-f]{64} in the cache"):
        fetch_weights(source(served), cache)
    assert fetch_weights(source(served), cache, allow_download=True).read_bytes() == CONTENT


def test_cache_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDPAPERS_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path / "weights"
    with pytest.raises(ValueError, match="a name without folders"):
        fetch_weights(WeightsSource("toy", "file:///x", SHA256, "../x.pt"), tmp_path)
