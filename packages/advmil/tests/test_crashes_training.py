"""Both trainers and a grid of runs, killed at any moment, end with the files of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pytest

from medshared.configuration import dump_yaml
from medshared.files import to_plain

pytestmark = pytest.mark.crash
thorough = pytest.mark.crash(thorough=True)


@pytest.fixture(scope="module")
def job(tiny_cohort, tmp_path_factory):
    from crash_testing import Job

    keys = tiny_cohort.config() | {
        "bcb_mode": "abmil", "bcb_dims": "16-8-8", "gen_dims": "8-1", "pdh_dims": "8-1", "disc_netx_out_dim": 4,
        "disc_nety_hid_dims": "3-4", "bp_every_batch": 4, "epochs": 4, "es_warmup": 1, "times_test_sample": 5,
        "device": "cpu",
    }  # fmt: skip
    config = tmp_path_factory.mktemp("killed") / "cfg.yaml"
    config.write_text(dump_yaml(to_plain(keys)))

    def make(handler: str, *flags: str):
        def arguments(output: Path) -> list[str]:
            # Runs of a grid lie beside the folder that is named.
            run = ["--output", str(output / "run"), "--resume"]
            return ["train", "-f", str(config), "-d", handler, *run, *flags]

        return Job("advmil.cli:main", arguments)

    return make


@pytest.fixture(scope="module")
def adversarial(crashes, job):
    return crashes.reference(job("adv"), "advmil-adv")


def test_adversarial_training(crashes, adversarial):
    crashes.kill_loop(adversarial)


@thorough
def test_adversarial_training_on_a_full_disk(crashes, adversarial):
    crashes.full_disk(adversarial, 0.5)
    crashes.faults(adversarial, adversarial.spread(crashes.kills))
    crashes.read_only(adversarial)


@thorough
def test_baseline(crashes, job):
    flags = ["--set", "task=surv_reg", "--set", "pdh_dims=8-1", "--set", "epochs=3"]
    crashes.kill_loop(crashes.reference(job("base", *flags), "advmil-base"))


@thorough
def test_grid_of_runs(crashes, job):
    flags = ["--multi_run", "--set", "data_split_seed=[0, 1]", "--set", "epochs=2"]
    crashes.kill_loop(crashes.reference(job("adv", *flags), "advmil-grid"))
