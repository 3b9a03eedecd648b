"""What a user sees when something is wrong: one table of broken inputs with the text on the command line.

Every case ends with exit code 1 and a message that names the file, row or key, what was expected and what to do;
there is no traceback, and nothing half-written stays behind. Inputs that are unusual but sound run to the end.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from advmil import cli
from advmil.data.splits import read_split, write_split
from medshared.configuration import dump_yaml

QUICK = {"bcb_mode": "abmil", "epochs": 2, "es_warmup": 0, "device": "cpu", "task": "cont_gansurv"}
BASE = {"task": "surv_reg"}


class Box:
    """A private copy of the tiny cohort with its configuration, to be broken."""

    def __init__(self, root: Path, cohort: Any, settings: Callable[..., dict[str, Any]]) -> None:
        self.root, self.run = root, root / "run"
        shutil.copytree(cohort.folder, root / "data")
        moved = {
            key: value.replace(str(cohort.folder), str(root / "data"))
            for key, value in settings().items()
            if isinstance(value, str)
        }
        self.keys: dict[str, Any] = settings(**QUICK) | moved | {"save_path": str(self.run)} | QUICK
        self.table = Path(self.keys["path_label"])
        self.split = Path(self.keys["data_split_path"].replace("{}", "0"))
        self.features = Path(self.keys["path_patch"])
        self.patient = read_split(self.split).train[0]

    @property
    def file(self) -> Path:
        """Features of the first slide of a training patient."""
        return sorted(self.features.glob(f"{self.patient}-S*.pt"))[0]

    def set(self, **changes: Any) -> None:
        self.keys |= changes

    def rewrite(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        torch.save(change(torch.load(self.file)), self.file)

    def rewrite_table(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        change(pd.read_csv(self.table, dtype={"patient_id": str})).to_csv(self.table, index=False)

    def change_patient(self, **values: Any) -> None:
        """Set labels in the first row of a patient with several slides."""

        def change(table: pd.DataFrame) -> pd.DataFrame:
            several = table["patient_id"].value_counts()
            row = table.index[table["patient_id"] == several.index[0]][0]
            table[list(values)] = table[list(values)].astype(float)
            table.loc[row, list(values)] = list(values.values())
            return table

        self.rewrite_table(change)

    def censor(self, part: str, keep: int = 0) -> None:
        """Make the patients of a part censored but for the first ones with an event."""
        ids = getattr(read_split(self.split), part)

        def change(table: pd.DataFrame) -> pd.DataFrame:
            mine = table[table["patient_id"].isin(ids) & (table["e"] == 1)]
            kept = list(dict.fromkeys(mine["patient_id"]))[:keep]
            table.loc[mine.index[~mine["patient_id"].isin(kept)], "e"] = 0
            return table

        self.rewrite_table(change)

    def use_h5(self, **extra: Any) -> Path:
        """Give the features as h5 files; return that of the first slide of a training patient."""
        folder = self.root / "h5_files"
        folder.mkdir()
        for path in self.features.glob("*.pt"):
            x = torch.load(path).numpy()
            with h5py.File(folder / f"{path.stem}.h5", "w") as file:
                file["features"] = x
                file["coords"] = np.zeros((len(x), 2), np.int64)
        self.set(feat_format="h5", path_patch=str(folder))
        return folder / f"{self.file.stem}.h5"

    def resplit(self, **parts: Any) -> None:
        old = read_split(self.split)
        write_split(self.split, **({"train": old.train, "val": old.val, "test": old.test} | parts))

    def train(self, handler: str, *flags: str) -> int:
        path = self.root / "cfg.yaml"
        path.write_text(dump_yaml(self.keys))
        return cli.main(["train", "--config", str(path), "--handler", handler, *flags])


@pytest.fixture
def box(tmp_path, tiny_cohort, tiny_settings, monkeypatch):
    monkeypatch.setattr("advmil.training.write_run_report", lambda folder: folder)
    return Box(tmp_path, tiny_cohort, tiny_settings)


def leftovers(folder: Path) -> list[str]:
    """Results, checkpoints and temporary files below a folder."""
    kinds = (".pth", ".pt", ".tmp", ".npz", "metrics.csv", "predictions.csv", "results.json")
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.endswith(kinds))


# ------------------------------------------------------------------ breaking


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def only_coordinates(box: Box) -> None:
    path = box.use_h5()
    with h5py.File(path, "w") as file:
        file["coords"] = np.zeros((16, 2), np.int64)


def nan_in_one(x: torch.Tensor) -> torch.Tensor:
    x[3, 5] = math.nan
    return x


def pickled_split(box: Box) -> None:
    old = read_split(box.split)
    arrays = {f"{name}_patients": np.array(ids, dtype=object) for name, ids in old.parts.items()}
    np.savez(box.split, **arrays)


def no_training_event(box: Box) -> None:
    box.censor("train")
    box.set(task="surv_nll", pdh_dims="8-4")


def other_clusters(box: Box) -> None:
    box.set(bcb_mode="cluster")
    path = Path(box.keys["path_cluster"]) / f"{box.patient}.npy"
    np.save(path, np.load(path)[:-1])


Break = Callable[[Box], Any]
CASES: dict[str, tuple[str, Break, list[str]]] = {
    # --- features
    "truncated pt": (
        "adv",
        lambda b: truncate(b.file),
        [r"patient \S+: .*-S1\.pt", "cut off|truncated|whole"],
    ),
    "truncated h5": (
        "adv",
        lambda b: truncate(b.use_h5()),
        [r"patient \S+: .*-S1\.h5", "cut off|truncated|whole"],
    ),
    "NaN": ("adv", lambda b: b.rewrite(nan_in_one), [r"patient \S+: .*-S1\.pt", "NaN"]),
    "other width": (
        "adv",
        lambda b: b.rewrite(lambda x: x[:, :7]),
        [r"-S1\.pt has 7 features a patch but bcb_dims starts with 16: set bcb_dims: 7-"],
    ),
    "bag of no patch": (
        "base",
        lambda b: (b.set(**BASE), b.rewrite(lambda x: x[:0])),
        [r"-S1\.pt", "no patch|empty|0 "],
    ),
    "bag of one patch in regions": ("adv", lambda b: b.rewrite(lambda x: x[:1]), [r"-S1\.pt: ", "16"]),
    "patches that are no whole regions": (
        "adv",
        lambda b: b.rewrite(lambda x: x[:-3]),
        [r"-S1\.pt: ", "multiple of 16|16", "regions: (coordinates|plain)"],
    ),
    "coordinates without features": ("adv", only_coordinates, [r"-S1\.h5", "features"]),
    "patient without slide file": (
        "adv",
        lambda b: b.file.unlink(),
        [r"1 slide files are missing: .*-S1\.pt \(patient \S+\)", "advmil check"],
    ),
    "folder of features": (
        "adv",
        lambda b: b.set(path_patch=str(b.root / "nowhere")),
        [r"path_patch: .*nowhere is no folder"],
    ),
    "clusters of other features": (
        "adv",
        other_clusters,
        [r"\.npy has \d+ cluster numbers but the slides have \d+"],
    ),
    "missing graph": (
        "adv",
        lambda b: (b.set(bcb_mode="graph"), (Path(b.keys["path_graph"]) / f"{b.file.stem}.pt").unlink()),
        [r"1 slide files are missing: .*graph/.*-S1\.pt"],
    ),
    # --- table
    "missing table": (
        "adv",
        lambda b: b.table.unlink(),
        [r"syn_path_full\.csv: no such table of slides: set path_label"],
    ),
    "missing column": (
        "adv",
        lambda b: b.rewrite_table(lambda t: t.drop(columns="e")),
        [r"syn_path_full\.csv", "'e'"],
    ),
    "duplicate rows": (
        "adv",
        lambda b: b.rewrite_table(lambda t: pd.concat([t, t.iloc[[0]]])),
        [r"syn_path_full\.csv:\d+", "pathology_id"],
    ),
    "contradictory labels": (
        "adv",
        lambda b: b.change_patient(t=17.0),
        [r"syn_path_full\.csv:\d+: patient \S+ has e=\d, t=", "labels of a patient must agree"],
    ),
    "time of 0": (
        "adv",
        lambda b: b.change_patient(t=0.0),
        [r"csv:\d+: column 't': expected days above 0, found 0"],
    ),
    "event of 2": (
        "adv",
        lambda b: b.change_patient(e=2.0),
        [r"csv:\d+: column 'e': expected 0 .* or 1", "found 2"],
    ),
    "no event to make bins of": (
        "base",
        no_training_event,
        ["none of the 16 patients", "quantile needs some"],
    ),
    # --- split
    "truncated split": ("adv", lambda b: truncate(b.split), [r"syn-fold0\.npz: not a whole npz file"]),
    "pickled split": ("adv", pickled_split, [r"syn-fold0\.npz: holds pickled objects, which could run code"]),
    "missing fold": (
        "adv",
        lambda b: b.set(data_split_seed=9),
        [r"syn-fold9\.npz: no such split: check data_split_path and data_split_seed"],
    ),
    "unknown patients": (
        "adv",
        lambda b: b.resplit(val=("nobody",)),
        [r"'val_patients' of syn-fold0\.npz names 1 patients that syn_path_full\.csv lacks \(nobody\)"],
    ),
    "patients in two parts": (
        "adv",
        lambda b: b.resplit(val=(b.patient,)),
        ["1 patients are in both 'train_patients' and 'val_patients'"],
    ),
    # --- configuration
    "unknown key": (
        "adv",
        lambda b: b.set(bcb_mod="patch"),
        [r"cfg\.yaml", "bcb_mod", "did you mean 'bcb_mode'"],
    ),
    "grid of no run": (
        "adv",
        lambda b: b.set(data_split_seed=[]),
        [r"cfg\.yaml: key 'data_split_seed': the list is empty, so the grid has no run"],
    ),
    "wrong type": ("adv", lambda b: b.set(epochs="many"), [r"cfg\.yaml", "epochs", "many"]),
    "unknown optimiser": ("adv", lambda b: b.set(opt_netG="adm"), ["adm", "adam"]),
    "all patients labelled": (
        "adv",
        lambda b: b.set(semi_training=True, ssl_num_labeled=16),
        ["ssl_num_labeled: 16 labels all 16 training patients"],
    ),
    "more folds than unlabelled patients": (
        "adv",
        lambda b: b.set(semi_training=True, ssl_num_labeled=14),
        ["2 unlabelled patients cannot be cut into 5 folds: lower ssl_kfold or ssl_num_labeled"],
    ),
    "sample of nobody": (
        "adv",
        lambda b: b.set(train_sampling=0.01),
        ["a sample of 0.01 of 16 patients has 0"],
    ),
    "test mode of an untrained model": (
        "adv",
        lambda b: b.set(test=True, test_load_path=str(b.root / "none"), test_save_path=str(b.run)),
        [r"test_load_path: .*none holds no train_modelG-best\.pth; train"],
    ),
    "test mode of a part without patients": (
        "adv",
        lambda b: (
            b.resplit(test=()),
            b.set(test=True, test_load_path=str(b.root), test_save_path=str(b.run)),
        ),
        [r"test_path: test: .*syn-fold0\.npz names no such patients"],
    ),
    "too few bags for a whole group": (
        "adv",
        lambda b: b.set(bp_every_batch=64, drop_last_group=True),
        ["drop_last_group leaves no group: 16 training patients, bp_every_batch 64", "lower bp_every_batch"],
    ),
    "learning rate that bursts": (
        "adv",
        lambda b: b.set(opt_netG_lr=1e30),
        ["a loss is not finite in epoch 1", "lower the learning rates"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name, box, capfd):
    handler, break_it, patterns = CASES[name]
    break_it(box)
    assert box.train(handler) == 1
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    message = shown[shown.rindex("error: ") :]
    for pattern in patterns:
        assert re.search(pattern, message), message
    assert leftovers(box.run) == []


# ------------------------------------------------------------------ unusual, but sound


SOUND: dict[str, tuple[str, Break, dict[str, Any]]] = {
    "bag of one patch without regions": ("base", lambda b: (b.set(**BASE), b.rewrite(lambda x: x[:1])), {}),
    "slide without patient": (
        "adv",
        lambda b: shutil.copy(b.file, b.features / "stranger.pt"),
        {},
    ),
    "fewer bags than bp_every_batch": ("adv", lambda b: b.set(bp_every_batch=64), {}),
    "no early stopping": ("adv", lambda b: b.set(es_patience=None), {"best_epoch": 2}),
    "the C-index chooses": ("adv", lambda b: b.set(monitor_metrics="ci"), {}),
    "one training patient a group": ("adv", lambda b: b.set(bp_every_batch=1), {}),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_input(name, box):
    handler, change, expected = SOUND[name]
    change(box)
    assert box.train(handler) == 0
    results = json.loads((box.run / "results.json").read_text())
    assert results["sets"]["test"]["c_index"] is not None
    for key, value in expected.items():
        assert results[key] == value


TASKS = [
    ("adv", {}),
    ("base", {"task": "surv_cox"}),
    ("base", {"task": "surv_nll", "pdh_dims": "8-4"}),
]


@pytest.mark.parametrize(("handler", "keys"), TASKS)
def test_a_validation_and_test_set_without_events(handler, keys, box):
    box.set(**keys)
    box.censor("val")
    box.censor("test")
    assert box.train(handler) == 0
    log = (box.run / "log.txt").read_text()
    assert re.search(r"validation: all \d+ patients are censored; the C-index is undefined", log)
    sets = json.loads((box.run / "results.json").read_text())["sets"]
    assert sets["test"]["c_index"] is None
    assert sets["train"]["c_index"] is not None
    assert "test/cindex          -->   nan" in (box.run / "train_metrics-best.txt").read_text()


def test_the_c_index_cannot_choose_without_events(box):
    box.set(monitor_metrics="ci", es_patience=1, epochs=3)
    box.censor("val")
    assert box.train("adv") == 0
    assert (box.run / "log.txt").read_text().count("validation c_index is undefined") == 1
    assert json.loads((box.run / "results.json").read_text())["best_epoch"] == 3


@pytest.mark.parametrize(("handler", "keys"), TASKS)
def test_one_event_among_the_training_patients(handler, keys, box):
    box.set(**keys)
    box.censor("train", keep=1)
    assert box.train(handler) == 0
    assert "train: one event among 16 patients" in (box.run / "log.txt").read_text()


def test_one_patient_in_the_validation_set(box):
    box.resplit(val=read_split(box.split).val[:1])
    assert box.train("adv") == 0
    results = json.loads((box.run / "results.json").read_text())
    assert results["sets"]["validation"]["c_index"] is None
    assert results["best_epoch"] >= 1


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_split_without_test_or_validation_patients(part, box):
    box.resplit(**{part: None if part == "test" else ()})
    assert box.train("adv") == 0
    results = json.loads((box.run / "results.json").read_text())
    missing = "test" if part == "test" else "validation"
    assert missing not in results["sets"]
    assert missing not in results["last_epoch"]
    assert f"{missing}: no patients; nothing is reported for it" in (box.run / "log.txt").read_text()


def test_a_broken_test_bag_costs_no_training(box, capfd):
    """The bag is met when the test set is scored; once it is mended, the run goes on from its last epoch."""
    patient = read_split(box.split).test[0]
    path = sorted(box.features.glob(f"{patient}-S*.pt"))[0]
    whole = path.read_bytes()
    truncate(path)
    assert box.train("adv") == 1
    assert path.name in capfd.readouterr().err
    assert not (box.run / "results.json").exists()
    path.write_bytes(whole)
    assert box.train("adv", "--resume") == 0
    assert "resumed after epoch 2" in (box.run / "log.txt").read_text()
