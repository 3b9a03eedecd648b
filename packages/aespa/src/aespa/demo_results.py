"""What the demonstration measured: held-out images, every rater in turn as the one who is followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from aespa.config import Config
from aespa.data.arrays import RaterArrays, load_arrays
from aespa.demo import SHOWN_CLUSTERS, SHOWN_SAMPLES, SIZE_PX, DemoParts, demo_keys
from aespa.evaluation import Tables, evaluate
from aespa.models.checkpoint import load_network
from aespa.models.network import AespaNetwork
from aespa.summary import image_table, summarise

if TYPE_CHECKING:
    from pathlib import Path

Summary = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Measured:
    """Networks and what they gave, for the figures.

    Attributes:
        test: The held-out images.
        networks: Of each method.
        configs: Of each method.
        tables: Of ``AESPA`` and ``SPA``.
    """

    test: RaterArrays
    networks: dict[str, AespaNetwork]
    configs: dict[str, Config]
    tables: dict[str, Tables]


def collect_results(parts: DemoParts, seed: int, device: str = "auto") -> tuple[dict[str, Any], Measured]:
    """Measure the trained networks.

    Args:
        parts: What the demonstration made.
        seed: Of the demonstration.
        device: Where the networks run.

    Returns:
        What ``results.json`` holds (without ``seconds``), and what the figures are drawn from.
    """
    from medshared.gpu import select_device

    where = select_device(device)
    networks = {mode: _load(folder, where) for mode, folder in parts.runs.items()}
    configs: dict[str, Config] = {
        mode: Config(**demo_keys(mode, parts.lidc, seed, device)).resolved() for mode in parts.runs
    }
    shown = {"num_samples": SHOWN_SAMPLES, "n_clusters": SHOWN_CLUSTERS}
    configs["SPA"] = configs["SPA"].model_copy(update=shown)
    test = load_arrays(configs["AESPA"], "test")
    tables = {
        "AESPA": evaluate(networks["AESPA"], test, configs["AESPA"], plain=networks["SAM"]),
        "SPA": evaluate(networks["SPA"], test, configs["SPA"], native=False),
    }
    aespa = _summary(tables["AESPA"], configs["AESPA"])
    spa = _summary(tables["SPA"], configs["SPA"])
    volumes = _volume_summary(parts, networks["AESPA"], configs["AESPA"])
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
    return content, Measured(test, networks, configs, tables)


def _load(folder: Path, device: torch.device) -> AespaNetwork:
    network, _ = load_network(folder / "checkpoints" / "best.pt", device=device)
    return network.eval()


def _summary(tables: Tables, config: Config) -> Summary:
    table = image_table(tables.pairs, tables.images, first=int(config.mode == "SPA"))
    return summarise(table, config.seed)


def _volume_summary(parts: DemoParts, network: AespaNetwork, config: Config) -> Summary:
    """Measure the network on slices of volumes, which it was not trained on."""
    keys = {"dataset": "MBHSeg-Binary", "data_path": parts.mbhseg, "image_size": SIZE_PX}
    other = config.model_copy(update=keys)
    arrays = load_arrays(other, "test")
    return _summary(evaluate(network, arrays, other, control=False, native=False), other)
