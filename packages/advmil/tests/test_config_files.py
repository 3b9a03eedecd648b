"""The configurations that are shipped: every one loads, expands and fits its handler."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from advmil.cli import add_run_options
from advmil.commands import load_runs
from advmil.config import Config
from medshared.configuration import load_yaml_or_json

FOLDER = Path(__file__).parents[1] / "config"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
FOLDS = 5
# The keys of the original's file, in its order.
ORIGINAL = """
task seed cuda_id wandb_dir wandb_prj save_path dataset path_patch path_graph path_cluster path_coordx5 path_label
feat_format time_format time_bins data_split_path data_split_seed save_prediction train_sampling bcb_mode bcb_dims
gen_dims gen_noi_noise gen_noi_noise_dist gen_noi_hops gen_norm gen_dropout gen_out_scale disc_type disc_netx_in_dim
disc_netx_out_dim disc_netx_ksize disc_netx_backbone disc_netx_dropout disc_nety_in_dim disc_nety_hid_dims
disc_nety_norm disc_nety_dropout disc_prj_path disc_prj_iprd loss_gan_coef loss_netD loss_regl1_coef loss_mle_alpha
loss_recon_norm loss_recon_alpha loss_recon_gamma opt_netG opt_netG_lr opt_netG_weight_decay opt_netD_lr epochs
batch_size bp_every_batch num_workers es_patience es_warmup es_verbose es_start_epoch gen_updates monitor_metrics
times_test_sample log_plot semi_training semi_training_mode ssl_epochs ssl_num_labeled ssl_kfold ssl_resume_ckpt
ssl_es_patience ssl_es_warmup ssl_es_verbose ssl_es_start_epoch test test_wandb_prj test_path test_load_path
test_save_path test_mask_ratio test_sampling_times test_zero_noise
"""


def expand(name: str, *flags: str) -> list[Config]:
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    handler = "base" if name.startswith("base") else "adv"
    command = ["--config", str(FOLDER / name), "--handler", handler, "--multi_run", *flags]
    _, runs = load_runs(parser.parse_args(command))
    return [config for _, config in runs]


def test_the_main_file_has_the_original_keys_in_order_each_with_its_meaning():
    path = FOLDER / "cfg_nlst.yaml"
    assert list(load_yaml_or_json(path)) == ORIGINAL.split()
    for section in ("# --- the run", "# --- data", "# --- backbone", "# --- generator", "# --- losses"):
        block = path.read_text().split(section)[1].split("# ---")[0]
        for line in block.splitlines():
            assert not re.match(r"\w", line) or "  # " in line or line.startswith("loss_netD"), line


@pytest.mark.parametrize("name", FILES)
def test_a_file_expands_into_runs_that_fit_its_handler(name):
    runs = expand(name)
    shares = {"cfg_nlst_semi.yaml": 4, "cfg_nlst_test.yaml": 11}.get(name, 1)
    assert len(runs) == FOLDS * shares
    assert len({config.save_path for config in runs}) == len(runs)
    assert {config.data_split_seed for config in runs} == set(range(FOLDS))


@pytest.mark.parametrize("name", [n for n in FILES if "_graph" not in n and n != "cfg_nlst_test.yaml"])
@pytest.mark.parametrize("backbone", ["cluster", "abmil"])
def test_the_other_backbones_of_a_family_fit_too(name, backbone):
    assert {config.bcb_mode for config in expand(name, "--set", f"bcb_mode={backbone}")} == {backbone}


def test_the_published_setting_is_that_of_the_defaults():
    shown = expand("cfg_nlst.yaml")[0].model_dump()
    own = {"cuda_id", "wandb_dir", "wandb_prj", "save_path", "dataset", "test_wandb_prj"}
    test_mode = {"test_load_path", "test_save_path", "test_mask_ratio", "test_zero_noise"}
    default = Config().model_dump()
    different = {
        key for key in shown if shown[key] != default[key] and not key.startswith(("path_", "data_"))
    }
    assert different == own | test_mode


def test_cohorts_differ_in_their_paths_only():
    graph = [
        expand(f"cfg_{cohort}_graph.yaml")[0].model_dump() for cohort in ("nlst", "tcga_brca", "tcga_lgg")
    ]
    for other in graph[1:]:
        different = {key for key in other if other[key] != graph[0][key]}
        assert different == {"save_path", "path_patch", "path_graph", "path_label", "data_split_path"}


def test_the_setting_that_users_ran_for_hazards_on_graphs():
    config = expand("base_nlst_nll_graph.yaml")[0]
    assert (config.bcb_dims, config.pdh_dims, config.mlp_hops, config.mlp_norm, config.mlp_dropout) == (
        "1024-128-128",
        "128-4",
        1,
        True,
        0.25,
    )
    assert (config.opt_net, config.opt_net_lr, config.opt_net_weight_decay) == ("adam", 2e-4, 1e-5)
