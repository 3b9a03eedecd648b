"""Time of an epoch with its evaluation, of labels, Cox loss and C-index, against the original's way of computing them.

One JSON line a workload. The plain side is written out here: an epoch in the original's order, after which every set is
predicted with 30 draws that take 31 passes through the backbone; labels patient by patient; loss and concordance pair
by pair. Both sides run in this process, in turn, on the same inputs, and their results are checked to be equal. Seconds
are of the processor, the fastest of some rounds. ``--quick`` for a fast look.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

# The plain networks and the plain update are those of the neighbouring benchmark.
from updates import Bag, line, plain_networks, plain_update, processor_seconds

from advmil import losses
from advmil.config import Config
from advmil.data.labels import make_labels
from advmil.data.tables import read_cohort
from advmil.groups import GroupLabels
from advmil.noise import NoiseSource, torch_noise
from advmil.run_data import load_run_data
from advmil.synthetic import CohortSettings, generate_cohort
from advmil.trainer import Trainer
from medshared.loggers import open_logger
from medshared.metrics.survival import concordance_index
from medshared.runs import RunDirectory, StopSignal

DRAWS = 30
ORIGINAL_WIDTH = 1024


def seeded(seed: int = 5) -> NoiseSource:
    """Return uniform noise that is the same every time."""
    return torch_noise("uniform", torch.Generator().manual_seed(seed))


def report(workload: str, seconds: dict[str, float], **values: object) -> None:
    """Print the ratio and the seconds of both sides."""
    sides = {f"{name}_s": value for name, value in seconds.items()}
    line(workload, ratio=seconds["plain"] / seconds["ours"], **sides, **values)


# --- an epoch


def read_plainly(trainer: Trainer, patient: str) -> Bag:
    """Read a patient's slides from disk, as the original does at every use."""
    paths = [trainer.data.source.slide_path(s) for s in trainer.data.cohort.patients[patient].slides]
    return Bag(torch.cat([torch.load(path, weights_only=True) for path in paths])[None])


@torch.no_grad()
def predict_plainly(
    trainer: Trainer, g, d, patients: tuple[str, ...], noise: NoiseSource
) -> dict[str, np.ndarray]:
    """Predict patients with a pass of the backbone for every draw."""
    g.eval()
    d.eval()
    draws, scores = [], []
    for patient in patients:
        x = read_plainly(trainer, patient).x
        scores.append(d(x, g(x, noise=noise)).reshape(()))
        draws.append(torch.cat([g(x, noise=noise) for _ in range(DRAWS)])[:, 0])
    samples = torch.stack(draws)
    return {
        "samples": samples.numpy(),
        "point": samples.quantile(0.5, dim=1).numpy(),
        "fake_scores": torch.stack(scores).numpy(),
    }


def bench_epoch(folder: Path, mode: str, patients: int, repeats: int) -> None:
    """One epoch of training, then all sets predicted with 30 draws."""
    cohort = generate_cohort(folder / mode, 0, CohortSettings(n_patients=patients, width=ORIGINAL_WIDTH))
    data_keys = {k: v for k, v in cohort.config().items() if k.startswith(("path_", "data_"))}
    config = Config.model_validate(
        data_keys | {"bcb_mode": mode, "num_workers": 0, "device": "cpu"}
    ).resolved()
    trainer = Trainer(config, "adv", load_run_data(config), RunDirectory(folder / f"{mode}-run").create({}))
    g, d = plain_networks(config, trainer.network, trainer.discriminator)
    sets = trainer.data.sets
    apart = 0.0
    for name, ids in sets.items():
        plain = predict_plainly(trainer, g, d, ids, seeded())
        ours = trainer.predict(ids, DRAWS, seeded())
        apart = max([apart, *(float(np.abs(getattr(ours, key) - plain[key]).max()) for key in plain)])
        assert apart < 1e-4, f"the predictions of the {name} set differ by {apart}"
    plain_optimisers = (
        torch.optim.Adam(g.parameters(), config.opt_netG_lr, weight_decay=config.opt_netG_weight_decay),
        torch.optim.Adam(d.parameters(), config.opt_netD_lr),
    )
    sink, stop, settings = open_logger("csv", folder, project=""), StopSignal(), trainer.update.settings

    def plain_epoch() -> None:
        for group in trainer.groups(0):
            rows = trainer.data.rows(group)
            labels = GroupLabels(
                torch.from_numpy(trainer.data.labels.t[rows]), torch.from_numpy(trainer.data.labels.e[rows])
            )
            bags = [read_plainly(trainer, patient) for patient in group]
            plain_update(g, d, *plain_optimisers, bags, labels, settings, seeded())
        for ids in sets.values():
            predict_plainly(trainer, g, d, ids, seeded())

    def our_epoch() -> None:
        trainer.train_epoch(0, stop, sink)
        for ids in sets.values():
            trainer.predict(ids, DRAWS, seeded())

    seconds = processor_seconds({"plain": plain_epoch, "ours": our_epoch}, repeats)
    report(
        f"epoch_with_evaluation_{mode}_{patients}_patients",
        seconds,
        patches=int(np.mean([trainer.data.source.load(p).x.shape[1] for p in sets["train"]])),
        largest_difference=f"{apart:.1e}",
    )


# --- labels


def write_table(path: Path, patients: int, rng: np.random.Generator) -> None:
    """Write a table of slides of the size of a real one: 2.7 slides a patient, in no order."""
    slides = [(f"P{k}", f"P{k}-S{s}") for k in range(patients) for s in range(rng.integers(1, 5))]
    ids = pd.DataFrame(slides, columns=["patient_id", "pathology_id"])
    labels = pd.DataFrame(
        {
            "patient_id": [f"P{k}" for k in range(patients)],
            "e": rng.integers(0, 2, patients),
            "t": rng.integers(10, 2700, patients).astype(float),
        }
    )
    table = ids.merge(labels, on="patient_id").sample(frac=1, random_state=0)
    table[["pathology_id", "patient_id", "e", "t"]].to_csv(path, index=False)


def bench_labels(folder: Path, patients: int, repeats: int) -> None:
    """Labels of a cohort: one look through the table for every patient, and once for all."""
    path = folder / "table.csv"
    write_table(path, patients, np.random.default_rng(0))
    cohort = read_cohort(path)
    ids = tuple(cohort.patients)
    table = pd.read_csv(path, dtype={"patient_id": str, "pathology_id": str})

    def plain() -> np.ndarray:
        found = []
        for patient in ids:
            rows = table[table["patient_id"] == patient]
            slides = rows["pathology_id"].tolist()
            assert slides
            found.append((rows["t"].iloc[0] / table["t"].max(), rows["e"].iloc[0]))
        return np.array(found)

    def ours() -> np.ndarray:
        return make_labels(cohort, ids, "ratio").as_original

    def ours_from_file() -> np.ndarray:
        known = read_cohort(path)
        return make_labels(known, tuple(known.patients), "ratio").as_original

    assert np.allclose(plain(), ours(), atol=1e-7), "the labels differ"
    assert np.array_equal(ours(), ours_from_file()), "the labels differ"
    seconds = processor_seconds({"plain": plain, "ours": ours, "ours_with_reading": ours_from_file}, repeats)
    ratio = seconds["plain"] / seconds["ours_with_reading"]
    report(f"labels_{patients}_patients", seconds, ratio_with_reading_and_checking=ratio)


# --- loss and concordance


def plain_cox(theta: Tensor, t: Tensor, e: Tensor) -> Tensor:
    """Compute the partial likelihood with risk sets found pair by pair."""
    n = len(theta)
    at_risk = torch.zeros(n, n)
    for i in range(n):
        for j in range(n):
            at_risk[i, j] = t[j] >= t[i]
    theta = theta.clamp(max=10.0)
    return -((theta - torch.log((theta.exp()[None] * at_risk).sum(dim=1))) * e).mean()


def bench_cox(n: int, repeats: int) -> None:
    """Cox loss and its gradient for all training patients of a large cohort."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(n, generator=generator, requires_grad=True)
    t = torch.randint(1, 500, (n,), generator=generator).float()
    e = (torch.rand(n, generator=generator) < 0.4).float()

    def gradient(loss: Callable[..., Tensor]) -> tuple[float, Tensor]:
        value = loss(theta, t, e)
        return float(value.detach()), torch.autograd.grad(value, theta)[0]

    plain, ours = gradient(plain_cox), gradient(losses.cox_loss)
    assert abs(plain[0] - ours[0]) < 1e-4, f"the losses differ: {plain[0]}, {ours[0]}"
    assert torch.allclose(plain[1], ours[1], atol=1e-5), "the gradients differ"
    sides = {"plain": lambda: gradient(plain_cox), "ours": lambda: gradient(losses.cox_loss)}
    seconds = processor_seconds(sides, repeats)
    report(f"cox_loss_and_gradient_{n}", seconds, largest_difference=f"{abs(plain[0] - ours[0]):.1e}")


def plain_c_index(risk: np.ndarray, event: np.ndarray, time: np.ndarray) -> float:
    """Count pairs one by one, as the definition reads."""
    agreeing = comparable = 0.0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if event[i] and (time[j] > time[i] or (time[j] == time[i] and not event[j])):
                comparable += 1
                if abs(risk[i] - risk[j]) <= 1e-8:
                    agreeing += 0.5
                elif risk[i] > risk[j]:
                    agreeing += 1
    return agreeing / comparable


def bench_concordance(few: int, many: int, repeats: int) -> None:
    """Concordance with tied risks and times: many patients against few pair by pair."""

    def patients(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        return rng.integers(0, n // 3, n) / n, rng.integers(0, 2, n), rng.integers(1, n // 2, n).astype(float)

    small, large = patients(few), patients(many)
    apart = abs(plain_c_index(*small) - concordance_index(*small))
    assert apart < 1e-12, f"the concordances differ by {apart}"
    sides = {"plain": lambda: plain_c_index(*small), "ours": lambda: concordance_index(*large)}
    seconds = processor_seconds(sides, repeats)
    same = processor_seconds({"ours": lambda: concordance_index(*small)}, repeats)["ours"]
    report(
        f"c_index_{many}_patients_against_{few}_pairwise",
        seconds,
        ratio_on_the_same_patients=seconds["plain"] / same,
        largest_difference=f"{apart:.1e}",
    )


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    quick = args.quick
    repeats = 1 if quick else 3
    line("machine", threads=torch.get_num_threads(), torch=torch.__version__, quick=quick)
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("abmil",) if quick else ("patch", "abmil"):
            bench_epoch(Path(folder), mode, 16 if quick else 60, repeats)
        bench_labels(Path(folder), 100 if quick else 447, repeats)
    bench_cox(100 if quick else 625, repeats)
    bench_concordance(200 if quick else 1000, 10_000 if quick else 100_000, repeats)


if __name__ == "__main__":
    main()
