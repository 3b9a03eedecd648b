"""Weights of SAM or MedSAM for a new network: renamed, resized, checked and reported."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from aespa.errors import CheckpointError
from aespa.models.architecture import SIZES
from aespa.models.network import AespaNetwork
from aespa.models.tables import resize_relative
from medshared.weights import WeightsError, extract_state_dict, load_checkpoint

NOT_IN_SAM = ("image_encoder.fcomb.", "EM_weights.", "EM_mean_variance.")
UNUSED_BUFFERS = ("pixel_mean", "pixel_std")  # constants that some copies of the files hold
NEEDED = "give the file of SAM or MedSAM for this encoder, such as medsam_vit_b.pth for vit_b"

_RENAMES = (
    (re.compile(r"\.attn\.rel_pos_([hw])$"), r".attn.rel_\1"),
    (re.compile(r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.lin1\."), r"\1.layers.0.0."),
    (re.compile(r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.lin2\."), r"\1.fc."),
)
_RELATIVE = re.compile(r"\.attn\.rel_[hw]$")
_MOST = 6  # keys that a message names


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a SAM file.

    Attributes:
        loaded: keys of the network that were loaded, renamed and resized ones too.
        renamed: (key in the file, key in the network).
        resized: (key in the network, shape in the file, shape in the network).
        missing: keys of the network that SAM does not have; they keep their random values.
        dropped: keys of the file that partial loading leaves out, as the original did without a word.
    """

    loaded: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...] = ()
    resized: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    missing: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the report for people, one fact a line."""
        total = len(self.loaded) + len(self.dropped)
        lines = [f"{len(self.loaded)} of {total} tensors loaded"]
        if self.renamed:
            lines.append(f"{len(self.renamed)} of them renamed, such as {' → '.join(self.renamed[0])}")
        if self.resized:
            key, found, wanted = self.resized[0]
            lines.append(
                f"{len(self.resized)} of them resized, such as {key} from {list(found)} to {list(wanted)}"
            )
        if self.missing:
            parts = ", ".join(sorted({_part(key) for key in self.missing}))
            lines.append(f"{len(self.missing)} tensors are new and start at random: {parts}")
        if self.dropped:
            lines.append(f"{len(self.dropped)} tensors left out (partial): {_some(self.dropped)}")
        return lines


def renamed_key(key: str) -> str:
    """Return this network's name of a tensor of SAM."""
    for pattern, replacement in _RENAMES:
        key = pattern.sub(replacement, key)
    return key


def load_sam_weights(
    network: AespaNetwork, path: str | os.PathLike[str], *, mode: Literal["full", "partial"] = "full"
) -> LoadReport:
    """Copy weights of SAM or MedSAM into a network.

    MedSAM was trained on images in [0, 1], as this network sees them; SAM itself on images normalised by its mean and
    deviation.

    Args:
        network: the network; its other weights are left as they are.
        path: file with SAM's state dictionary.
        mode: ``full``: every tensor, renamed and resized; ``partial``: only those whose name and shape are the same
            on both sides, as the original did.

    Returns:
        What was loaded.

    Raises:
        CheckpointError: naming the file and what does not fit; the network is unchanged then.
    """
    try:
        state = extract_state_dict(load_checkpoint(path))
    except WeightsError as error:
        raise CheckpointError(f"{_as_message(path, error)}; {NEEDED}") from error
    state = {key: value for key, value in state.items() if key not in UNUSED_BUFFERS}
    _check_kind(path, state, network)
    own = network.state_dict()
    ready, report = _partial(state, own) if mode == "partial" else _full(path, state, own)
    network.load_state_dict(ready, strict=False)
    return report


def _as_message(path: str | os.PathLike[str], error: Exception) -> str:
    text = str(error)
    return text if os.fspath(path) in text else f"{os.fspath(path)}: {text}"


def _check_kind(path: str | os.PathLike[str], state: Mapping[str, object], network: AespaNetwork) -> None:
    """Name the usual wrong files."""
    name = os.fspath(path)
    if any(key.startswith(NOT_IN_SAM) for key in state):
        raise CheckpointError(
            f"{name}: a checkpoint of this package, not SAM's weights: pass it as -pretrain or -weights"
        )
    table = state.get("image_encoder.pos_embed")
    if not isinstance(table, Tensor) or table.ndim != 4:
        found = _some(tuple(state)) or "nothing"
        raise CheckpointError(
            f"{name}: no weights of SAM: no image_encoder.pos_embed among {found}; {NEEDED}"
        )
    wanted, width = network.architecture.encoder, table.shape[-1]
    if width != SIZES[wanted].width:
        of = next((size for size, about in SIZES.items() if about.width == width), f"a width of {width}")
        raise CheckpointError(
            f"{name}: weights of encoder {of}, but the network is {wanted}: set encoder: {of} or give another file"
        )


def _full(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], LoadReport]:
    ready: dict[str, Tensor] = {}
    renamed, resized = [], []
    for key, value in state.items():
        name = renamed_key(key)
        if name != key:
            renamed.append((key, name))
        if name in own and value.shape != own[name].shape and _can_resize(name, value, own[name]):
            resized.append((name, tuple(value.shape), tuple(own[name].shape)))
            value = resize_relative(value.float(), own[name].shape[0])
        ready[name] = value
    missing = tuple(key for key in own if key not in ready)
    check_fit(path, ready, own, allowed_missing=NOT_IN_SAM, mend=NEEDED)
    return ready, LoadReport(tuple(ready), tuple(renamed), tuple(resized), missing)


def _can_resize(name: str, value: Tensor, own: Tensor) -> bool:
    return bool(_RELATIVE.search(name)) and value.ndim == 2 and value.shape[1] == own.shape[1]


def _partial(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], LoadReport]:
    fits = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    dropped = tuple(key for key in state if key not in fits)
    missing = tuple(key for key in own if key not in fits)
    return fits, LoadReport(tuple(fits), missing=missing, dropped=dropped)


def check_fit(
    path: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    *,
    allowed_missing: tuple[str, ...] = (),
    mend: str,
) -> None:
    """Raise unless a state dictionary has the keys and shapes of a network.

    Args:
        path: file that the message names.
        state: what was read.
        own: what the network has.
        allowed_missing: beginnings of keys that may be missing.
        mend: what to do, at the end of the message.

    Raises:
        CheckpointError: naming missing keys, keys left over, and shapes.
    """
    missing = [key for key in own if key not in state and not key.startswith(allowed_missing)]
    over = [key for key in state if key not in own]
    shapes = [
        f"{key} is {list(state[key].shape)}, expected {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    facts = []
    if missing:
        facts.append(f"{len(missing)} tensors are missing ({_some(missing)})")
    if over:
        facts.append(f"{len(over)} are left over ({_some(over)})")
    if shapes:
        facts.append(f"{len(shapes)} have another shape ({_some(shapes)})")
    if facts:
        raise CheckpointError(f"{os.fspath(path)}: the weights do not fit: {'; '.join(facts)}. {mend}")


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f", … and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def _part(key: str) -> str:
    return next((start.rstrip(".") for start in NOT_IN_SAM if key.startswith(start)), key.rpartition(".")[0])
