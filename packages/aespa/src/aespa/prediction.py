"""Images and volumes → files that a person opens: masks, probabilities and entropy, at the input's own resolution.

Written into the output folder: of an image ``masks/<name>.png`` (0 and 255), ``probability/<name>.png`` (255 is 1) or
``.npy``, ``entropy/<name>.png`` (255 is one bit) and ``proposals/<name>_<k>.png``; of a volume ``<name>.nii.gz`` in the
first three, in the geometry of its file; of all ``cases/<name>.json``, ``predictions.csv`` and ``predict-report.json``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from aespa.config import Mode
from aespa.errors import DataError
from aespa.models.checkpoint import load_network
from aespa.models.network import AespaNetwork
from aespa.prediction_inputs import Item, find_items, with_clicks
from aespa.prediction_items import Segmenter
from aespa.prediction_options import PredictOptions
from aespa.predictor import AespaPredictor
from medshared.batch import Outcome, Task, run_batch, write_batch_report
from medshared.files import read_json, sha256_file
from medshared.gpu import select_device
from medshared.leases import Shard
from medshared.process import run_logging
from medshared.tables import write_table

logger = logging.getLogger(__name__)

COLUMNS = ("image", "slice", "width", "height", "clicks", "pixels", "mean_entropy", "ms", "status", "message")


def predict(options: PredictOptions) -> int:
    """Segment images and volumes; a bad one is recorded and stops no other.

    What was made by the same network from the same file with the same clicks and flags is left alone.

    Args:
        options: What to do.

    Returns:
        Exit code: 1 when an item failed.

    Raises:
        DataError: There is nothing to segment, or two results would have one name.
        CheckpointError: The checkpoint cannot be used.
        TableError: Rows of the table of clicks are wrong, or for none of the inputs.
    """
    items = find_items(options.inputs, options.output)
    if options.clicks is not None:
        items = with_clicks(items, options.clicks)
    network, checkpoint = load_network(
        options.weights, device=select_device(options.device), image_size=options.image_size
    )
    mode = _mode(options, network, checkpoint)
    predictor = AespaPredictor(network, mode=mode, n_samples=options.num_samples, seed=options.seed)
    segmenter = Segmenter(predictor, options)
    options.output.mkdir(parents=True, exist_ok=True)
    with run_logging("aespa", options.output / "log.txt"):
        logger.info("%s: %s, %s", options.weights, mode, network.architecture)
        if options.k and any(item.is_volume for item in items):
            logger.warning("-k: proposals are written of images only; those of slices would not fit together")
        common = {"weights": sha256_file(options.weights), "mode": mode, "settings": _settings(options)}
        tasks = [_task(segmenter, item, options.output, common) for item in items]
        outcomes = run_batch("predict", tasks, shard=options.shard, again=options.overwrite)
        write_predictions(options.output, items, outcomes)
        return write_batch_report(options.output / _report_name(options.shard), outcomes, options.shard)


def _mode(options: PredictOptions, network: AespaNetwork, checkpoint: Mapping[str, Any]) -> Mode:
    """Return the method that was asked for, or that the checkpoint was trained for."""
    if not network.architecture.preferences:
        if options.mode not in (None, "SAM"):
            raise DataError(f"-mode {options.mode}: {options.weights} is a plain SAM, without preferences")
        return "SAM"
    config = checkpoint.get("config")
    known: dict[Any, Mode] = {mode: mode for mode in get_args(Mode)}
    trained = known.get(config.get("mode")) if isinstance(config, Mapping) else None
    if options.mode == "SAM":
        raise DataError(f"-mode SAM: {options.weights} was trained with preferences; leave -mode away")
    if options.mode is None and trained is None:
        logger.warning(
            "%s does not say its method: taken for AESPA; -mode SPA says otherwise", options.weights
        )
    return options.mode or trained or "AESPA"


def _settings(options: PredictOptions) -> dict[str, Any]:
    """Return the flags that a result depends on."""
    names = ("num_samples", "k", "npy", "stretch", "axis", "window", "propagate", "image_size", "seed")
    return {name: getattr(options, name) for name in names}


def _report_name(shard: Shard) -> str:
    """Return the name of the report; jobs of several shards write one each."""
    return "predict-report.json" if shard.count == 1 else f"predict-report-{shard.index + 1}.json"


def _task(segmenter: Segmenter, item: Item, output: Path, common: Mapping[str, Any]) -> Task:
    record = _record_path(output, item)
    _forget_if_removed(record, output)
    return Task(
        item=item.name,
        output=record,
        inputs=partial(_inputs, item, common),
        work=partial(segmenter.work, item, record),
    )


def _record_path(output: Path, item: Item) -> Path:
    return output / "cases" / f"{item.name}.json"


def _inputs(item: Item, common: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        found = item.path.stat()
    except OSError as error:
        raise DataError(f"{item.path}: cannot be read: {error.strerror or error}") from error
    clicks = [[click.slice, click.x, click.y, click.label] for click in item.clicks]
    return {**common, "file": [str(item.path), found.st_size, found.st_mtime_ns], "clicks": clicks}


def _forget_if_removed(record: Path, output: Path) -> None:
    """Take an item for unfinished whose files somebody removed."""
    found = read_record(record)
    if found is not None and not all((output / name).is_file() for name in found["files"]):
        record.unlink()


def read_record(path: Path) -> dict[str, Any] | None:
    """Return what ``cases/<name>.json`` holds; null when it is missing or damaged."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"files", "rows"} <= found.keys() else None


def write_predictions(output: Path, items: Sequence[Item], outcomes: Sequence[Outcome]) -> None:
    """Write ``predictions.csv``: a row an image or slice of all that is finished, by other jobs too, or has failed.

    Args:
        output: Folder of the results.
        items: All items.
        outcomes: Of this job.
    """
    failed = {outcome.item: outcome.message for outcome in outcomes if outcome.status == "failed"}
    rows: list[dict[str, Any]] = []
    for item in items:
        if item.name in failed:
            rows.append({"image": item.name, "status": "failed", "message": failed[item.name]})
            continue
        found = read_record(_record_path(output, item))
        rows += [{"image": item.name, "status": "done", **row} for row in found["rows"]] if found else []
    table = [{column: row.get(column) for column in COLUMNS} for row in rows]
    write_table(output / "predictions.csv", _frame(table))


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
