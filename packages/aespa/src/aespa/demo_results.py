"""What the demonstration measured: held-out images, every rater in turn as the one who is followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aespa.config import Config, Mode
from aespa.data.arrays import RaterArrays, load_arrays
from aespa.demo import SHOWN_CLUSTERS, SHOWN_SAMPLES, SPA_IMAGES, DemoParts, demo_keys, side_by_side
from aespa.evaluation import Tables, evaluate
from aespa.models.checkpoint import load_network
from aespa.models.network import AespaNetwork
from aespa.summary import image_table, summarise
from medshared.gpu import one_thread, select_device

Summary = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Measured:
    """Networks and what they gave, for the figures.

    Attributes:
        test: The held-out images.
        networks: Of each method.
        configs: Of each method.
    """

    test: RaterArrays
    networks: dict[str, AespaNetwork]
    configs: dict[str, Config]


def collect_results(parts: DemoParts, seed: int, device: str = "auto") -> tuple[dict[str, Any], Measured]:
    """Measure the trained networks.

    Args:
        parts: What the demonstration made.
        seed: Of the demonstration.
        device: Where the networks run.

    Returns:
        What ``results.json`` holds (without ``seconds``), and what the figures are drawn from.
    """
    configs = shown_configs(parts, seed, device)
    jobs = [_Job(name, parts, configs) for name in ("SPA", "AESPA", "MBHSeg")]
    tables = dict(zip((job.name for job in jobs), side_by_side(_measure, jobs, device), strict=True))
    aespa = _summary(tables["AESPA"], configs["AESPA"])
    spa = _summary(tables["SPA"], configs["SPA"])
    volumes = _summary(tables["MBHSeg"], configs["MBHSeg"])
    last = configs["AESPA"].runs - 1
    content = {
        "metrics": {
            "dice_neutral_round0": aespa["dice_neutral_r0"]["mean"],
            "dice_follow_round1": aespa["dice_r1"]["mean"],
            "dice_follow_late": aespa["dice_late"]["mean"],
            "dice_per_rater_round0": aespa["dice_r0"]["mean"],
            "random_click_dice_late": aespa["random_click_dice_late"]["mean"],
            "ged": aespa[f"ged_r{last}"]["mean"],
            "dice_max": aespa[f"dice_max_r{last}"]["mean"],
            "dice_match": aespa[f"dice_match_r{last}"]["mean"],
            "interactions_to_0_85": aespa["interactions_to_0_85"]["mean"],
            "native_dice_late": aespa["native_dice_late"]["mean"],
            "spa_dice_round0": spa["dice_r0"]["mean"],
            "spa_dice_late": spa["dice_late"]["mean"],
            "spa_proposal_dice_late": spa["proposal_dice_late"]["mean"],
            "spa_ged_samples": spa["ged_samples"]["mean"],
            "spa_ged_mean_mask": spa["ged_mean_mask"]["mean"],
            "mbhseg_dice_follow_late": volumes["dice_late"]["mean"],
        },
        "baseline": {
            "majority_dice": aespa["majority_dice"]["mean"],
            "plain_sam_dice_late": aespa["plain_sam_dice_late"]["mean"],
            "plain_sam_own_clicks_dice_late": aespa["plain_sam_own_clicks_dice_late"]["mean"],
            "mbhseg_majority_dice": volumes["majority_dice"]["mean"],
        },
        "seed": seed,
        "summary": {"AESPA": aespa, "SPA": spa, "MBHSeg": volumes},
    }
    networks = {mode: _load(parts, mode, device) for mode in ("AESPA", "SPA")}
    return content, Measured(load_arrays(configs["AESPA"], "test"), networks, configs)


def shown_configs(parts: DemoParts, seed: int, device: str) -> dict[str, Config]:
    """Return how each network is measured: SPA with more samples than it trained with, on fewer images."""
    configs: dict[str, Config] = {
        mode: Config(**demo_keys(mode, parts.lidc, seed, device)).resolved() for mode in parts.runs
    }
    shown = {"num_samples": SHOWN_SAMPLES, "n_clusters": SHOWN_CLUSTERS, "subset": SPA_IMAGES}
    configs["SPA"] = configs["SPA"].model_copy(update=shown)
    other = {"dataset": "MBHSeg-Binary", "data_path": parts.mbhseg}
    configs["MBHSeg"] = configs["AESPA"].model_copy(update=other)
    return configs


@dataclass(frozen=True)
class _Job:
    """One network on one data set."""

    name: str
    parts: DemoParts
    configs: dict[str, Config]


def _measure(job: _Job) -> Tables:
    config = job.configs[job.name]
    arrays = load_arrays(config, "test")
    with one_thread():
        network = _load(job.parts, config.mode, config.device)
        if job.name != "AESPA":
            return evaluate(network, arrays, config, control=False, native=False)
        return evaluate(network, arrays, config, plain=_load(job.parts, "SAM", config.device))


def _load(parts: DemoParts, mode: Mode, device: str) -> AespaNetwork:
    network, _ = load_network(parts.runs[mode] / "checkpoints" / "best.pt", device=select_device(device))
    return network.eval()


def _summary(tables: Tables, config: Config) -> Summary:
    table = image_table(tables.pairs, tables.images, first=int(config.mode == "SPA"))
    return summarise(table, config.seed)
