"""Rules between keys."""

from __future__ import annotations

import pytest

from advmil.config import Config
from advmil.config_rules import check_config, dead_keys, with_task_format
from medshared.configuration import ConfigError

PATHS = {"path_patch": "feat", "path_label": "table.csv", "data_split_path": "fold{}.npz"}
DISCRETE = {
    "task": "disc_gansurv",
    "time_format": "quantile",
    "gen_dims": "384-4",
    "disc_nety_in_dim": 4,
}
BASE = {"task": "surv_reg"}


def test_the_published_setting_fits():
    check_config(Config(**PATHS), "adv")
    check_config(Config(**PATHS, **DISCRETE), "adv")
    check_config(Config(**PATHS, **BASE), "base")
    check_config(Config(**PATHS, task="surv_nll", pdh_dims="384-4"), "base")


@pytest.mark.parametrize(
    ("handler", "keys", "message"),
    [
        ("adv", {"path_patch": ""}, "key 'path_patch': missing"),
        ("adv", {"bcb_mode": "graph"}, "key 'path_graph': missing"),
        ("adv", {"bcb_mode": "cluster"}, "key 'path_cluster': missing"),
        ("adv", {"bcb_dims": "1024-384"}, "expected input-hidden-embedding"),
        ("adv", {"bcb_dims": "1024-256-384"}, "hidden 256 must equal embedding 384"),
        ("adv", {"bcb_dims": "1024-380-380", "gen_dims": "380-1"}, "must be a multiple of 8"),
        ("adv", {"semi_training": True, "test": True}, "exclude each other"),
        ("adv", {"test": True}, "key 'test_load_path': missing"),
        ("adv", {"task": "surv_cox"}, "'surv_cox' is a baseline"),
        ("adv", {"times_test_sample": 1}, "1 sample hides the noise"),
        ("adv", {"gen_noi_noise": "0-0"}, "every sample is the same"),
        ("adv", {"gen_noi_hops": 2}, "expected gen_noi_hops \\+ 1 = 3"),
        ("adv", {"gen_dims": "128-1"}, "starts with 128, but bcb_dims ends with 384"),
        ("adv", {"gen_dims": "384-4"}, "predicts one time"),
        ("adv", {"disc_netx_in_dim": 512}, "512, but bcb_dims starts with 1024"),
        ("adv", {"disc_nety_in_dim": 4}, "4, but gen_dims ends with"),
        ("adv", {"disc_nety_hid_dims": "64-64"}, "both embeddings meet in a product"),
        ("adv", {"time_format": "origin"}, "expected \\(sigmoid, ratio, 0\\)"),
        ("adv", {"loss_recon_gamma": 1.0}, "expected \\(sigmoid, ratio, 0\\)"),
        ("adv", DISCRETE | {"time_format": "ratio"}, "needs quantile"),
        ("adv", DISCRETE | {"gen_out_scale": "exp"}, "needs sigmoid"),
        ("adv", DISCRETE | {"time_bins": 5}, "4, but time_bins is 5"),
        ("adv", DISCRETE | {"log_plot": True}, "must be False"),
        ("adv", DISCRETE | {"loss_rank_coef": 0.1}, "must be 0 for task disc_gansurv"),
        ("adv", {"test": True, "test_load_path": "a", "test_save_path": "b", "test_mask_ratio": 0.5,
                 "bcb_mode": "graph", "path_graph": "g"}, "can be masked for bcb_mode patch and abmil"),
        ("base", {"task": "cont_gansurv"}, "is AdvMIL; use --handler adv"),
        ("base", BASE | {"pdh_dims": "384"}, "expected embedding-outputs"),
        ("base", BASE | {"pdh_dims": "128-1"}, "starts with 128"),
        ("base", {"task": "surv_nll"}, "needs 4 outputs \\(time_bins\\)"),
        ("base", BASE | {"semi_training": True}, "baselines learn from labels only"),
        ("base", BASE | {"test": True, "test_load_path": "a", "test_save_path": "b"}, "advmil predict"),
    ],
)  # fmt: skip
def test_broken_rules_are_named(handler, keys, message):
    with pytest.raises(ConfigError, match=message):
        check_config(Config(**(PATHS | keys)), handler, "c.yaml")


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        check_config(Config(**PATHS, gen_noi_hops=2, disc_netx_in_dim=512), "adv", "c.yaml")
    assert len(caught.value.problems) == 2
    assert all(line.startswith("c.yaml: key") for line in caught.value.problems)


def test_baselines_fix_their_time_format():
    assert with_task_format(Config(task="surv_cox"), "base").time_format == "origin"
    assert with_task_format(Config(task="surv_nll"), "base").time_format == "quantile"
    assert with_task_format(Config(time_format="origin"), "adv").time_format == "origin"


def test_dead_keys_are_found():
    assert dead_keys({"dataset", "seed", "path_coordx5"}) == ["dataset", "path_coordx5"]
