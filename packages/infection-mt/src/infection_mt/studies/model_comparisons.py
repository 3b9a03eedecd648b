"""Model families side by side: multi-task, conditioned, class-specific regressors, a classifier.

Models are joined by sample key; pairs of models are compared by whole stacks, corrected by Holm's method.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infection_mt.analysis.comparison import average_predictions, common_frames, compare_models, model_table
from infection_mt.analysis.errors import errors_of_classes, pool_folds, time_bin_table
from infection_mt.analysis.plots import INFECTED, UNINFECTED, save_figure, style_axes
from infection_mt.config import WindowsConfig
from infection_mt.evaluation import evaluate_predictions
from infection_mt.prediction_table import Predictions, concatenate
from infection_mt.studies.panels import COLORS, bar_panel, line_panel, panel_grid
from infection_mt.studies.run_folders import find_checkpoints, load_folds
from infection_mt.studies.sweep_files import LABELS
from infection_mt.studies.text_tables import text_table
from infection_mt.window_files import window_lists
from infection_mt.windows import window_predictions
from medshared.files import read_json, write_json
from medshared.metrics.statistics import fold_summary
from medshared.tables import write_table

logger = logging.getLogger(__name__)
Families = dict[str, list[Predictions]]  # model → predictions of its folds
METRICS = ("auc", "accuracy", "f1", "precision", "recall")
FLAGS = {
    "multitask": "Multitask",
    "multitask_conditioned": "Multitask-ClsConditioned",
    "regression_infected": "Regression-Infected",
    "regression_uninfected": "Regression-Uninfected",
    "single_classification": "Single-Classification",
}


def load_families(arguments: argparse.Namespace) -> Families:
    """Return the folds of every model that the command line names.

    Raises:
        ValueError: Fewer than two models are named.
    """
    given = {name: getattr(arguments, flag, None) for flag, name in FLAGS.items()}
    folders = {name: path for name, path in given.items() if path is not None}
    if len(folders) < 2:
        flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in FLAGS if hasattr(arguments, flag))
        raise ValueError(f"a comparison needs at least two models: give two of {flags}")
    return {name: list(load_folds(path).values()) for name, path in folders.items()}


def one_table(folds: Sequence[Predictions]) -> Predictions:
    """Return one prediction a frame: rotating folds put together, models of one test set averaged."""
    if len({key for fold in folds for key in fold.keys}) == sum(len(fold) for fold in folds):
        return concatenate(folds)
    return average_predictions(folds)


def all_models(arguments: argparse.Namespace) -> int:
    """Write the comparison of ``compare_all_models_comprehensive.py``: pictures, two tables, a JSON report."""
    families = load_families(arguments)
    output = arguments.output_dir
    _overview(output, families)
    table = model_table(families)
    write_table(output / "comparison_summary_table.csv", table)
    tests = compare_models({name: one_table(folds) for name, folds in families.items()})
    write_table(output / "statistical_tests.csv", tests)
    content = {
        "models": {name: _family_report(folds) for name, folds in families.items()},
        "summary_table": table,
        "statistical_tests": tests,
    }
    write_json(output / "full_comparison_report.json", content)
    logger.info("\n%s", _as_text(table))
    return 0


def all_models_improved(arguments: argparse.Namespace) -> int:
    """Write the same pictures and, instead of t tests over overlapping windows, paired tests over stacks."""
    families = load_families(arguments)
    output = arguments.output_dir
    _overview(output, families)
    tests = compare_models({name: one_table(folds) for name, folds in families.items()})
    write_table(output / "statistical_tests.csv", tests)
    headers = ["models", "metric", "first", "second", "difference", "low", "high", "p (Holm)"]
    columns = ("metric", "value_1", "value_2", "difference", "low", "high", "p_holm")
    rows = [[f"{t['Model_1']} – {t['Model_2']}", *(t[column] for column in columns)] for t in tests]
    logger.info("\n%s", text_table(headers, rows))
    return 0


def _overview(output: Path, families: Families) -> None:
    """Draw the bars of all models, their windows, their time errors by hour and by class."""
    figures = {"model_comparison_overview.png": overview_figure(families)}
    classifiers = {n: folds for n, folds in families.items() if folds[0].has_classes}
    regressors = {n: folds for n, folds in families.items() if folds[0].has_time}
    if classifiers:
        narrow = WindowsConfig(size_hours=3, stride_hours=1)
        figures["classification_windows_3h.png"] = windows_figure(classifiers, narrow)
    if regressors:
        figures["regression_by_time_6h.png"] = time_bins_figure(regressors)
        figures["regression_by_class.png"] = by_class_figure(regressors)
    for name, figure in figures.items():
        logger.info("wrote %s", save_figure(output / name, figure))


def overview_figure(families: Families) -> Any:
    """Draw the metrics of all models as bars with their deviation over folds."""
    metrics = {n: [evaluate_predictions(fold) for fold in folds] for n, folds in families.items()}
    groups = (
        ("Classification", "Score", {"cls_accuracy": "accuracy", "cls_f1": "F1", "cls_auc": "AUC"}, 3),
        ("Time error", "Hours", {"reg_mae": "MAE", "reg_rmse": "RMSE"}, 2),
    )
    figure, panels = panel_grid(2, columns=2, width=7.5, height=5)
    for axes, (title, unit, names, digits) in zip(panels, groups, strict=True):
        series = {}
        for model, folds in metrics.items():
            summaries: list[dict[str, Any]] = [
                fold_summary([f.get(name, np.nan) for f in folds]) for name in names
            ]
            if not np.isnan([s["mean"] for s in summaries]).all():
                series[model] = ([s["mean"] for s in summaries], [s["std"] for s in summaries])
        bar_panel(axes, list(names.values()), series, title=title, y_label=unit, decimals=digits)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper center")
    return figure


def windows_figure(families: Families, config: WindowsConfig) -> Any:
    """Draw windowed metrics of classifiers, mean and deviation over folds."""
    figure, panels = panel_grid(3)
    found = {n: [window_lists(window_predictions(f, config)) for f in folds] for n, folds in families.items()}
    for axes, metric in zip(panels, ("accuracy", "f1", "auc"), strict=True):
        series = {}
        centers: list[float] = []
        for model, folds in found.items():
            centers = folds[0][0]
            values = np.array([[np.nan if v is None else v for v in lists[metric]] for _, lists in folds])
            # Empty windows are gaps: their mean is undefined, not an error.
            counts = np.isfinite(values).any(axis=0)
            mean, std = np.full(len(centers), np.nan), np.full(len(centers), np.nan)
            mean[counts], std[counts] = np.nanmean(values[:, counts], 0), np.nanstd(values[:, counts], 0)
            series[model] = (mean, std)
        label = f"Centre of the {config.size_hours:g} h window (h)"
        line_panel(
            axes,
            centers,
            series,
            title=LABELS[metric],
            x_label=label,
            y_label=LABELS[metric],
            points=False,
            limits=(0.0, 1.0),
        )
    return figure


def time_bins_figure(families: Families, *, size_hours: float = 6.0) -> Any:
    """Draw the mean absolute time error of all models in bins of the recording, one panel a class."""
    figure, panels = panel_grid(2, columns=2, width=6.5)
    for axes, name in zip(panels, ("Uninfected", "Infected"), strict=True):
        for i, (model, folds) in enumerate(families.items()):
            rows = [r for r in time_bin_table(pool_folds(folds), size_hours=size_hours) if r["class"] == name]
            x, y = [r["center"] for r in rows], [r["mae"] for r in rows]
            if rows:
                axes.plot(x, y, marker="o", markersize=4, linewidth=1.8, label=model, color=COLORS[i % 6])
        style_axes(axes, f"{name} frames", "Hours since the first frame", "MAE (h)")
        axes.set_ylim(bottom=0)
        if axes.get_lines():
            axes.legend(frameon=False, fontsize=9)
    return figure


def by_class_figure(families: Families) -> Any:
    """Draw the mean absolute time error of each class and model."""
    found = {model: errors_of_classes(pool_folds(folds)) for model, folds in families.items()}
    series = {
        name.lower(): ([of_model.get(name, {}).get("mae", np.nan) for of_model in found.values()], None)
        for name in ("Uninfected", "Infected")
    }
    figure, [axes] = panel_grid(1, width=max(7.0, 2.4 * len(found)), height=4.8)
    names = [model.replace("-", "\n") for model in found]
    bar_panel(axes, names, series, title="Time error of each class", y_label="MAE (h)", decimals=2,
              colors=[UNINFECTED, INFECTED])  # fmt: skip
    return figure


def _family_report(folds: Sequence[Predictions]) -> dict[str, Any]:
    metrics = [evaluate_predictions(fold) for fold in folds]
    names = list(dict.fromkeys(name for fold in metrics for name in fold))
    return {
        "num_folds": len(folds),
        "num_frames": [len(fold) for fold in folds],
        "metrics": {name: fold_summary([fold.get(name, np.nan) for fold in metrics]) for name in names},
        "errors_by_class": errors_of_classes(pool_folds(folds)) if folds[0].has_time else None,
    }


def _as_text(table: Sequence[Mapping[str, Any]]) -> str:
    return text_table(list(table[0]), [list(row.values()) for row in table])


def regression_performance(arguments: argparse.Namespace) -> int:
    """Compare the time errors of a multi-task model with class-specific regressors, each on its own class."""
    families = load_families(arguments)
    output = arguments.output_dir
    rows = [
        {"Model": model, "Class": name, **values}
        for model, folds in families.items()
        for name, values in errors_of_classes(pool_folds(folds)).items()
    ]
    write_table(output / "regression_comparison.csv", rows)
    tests = compare_models({name: one_table(folds) for name, folds in families.items()})
    tests = [test for test in tests if test["metric"] == "reg_mae"]
    write_table(output / "regression_comparison_tests.csv", tests)
    save_figure(output / "regression_comparison.png", by_class_figure(families))
    headers = ["model", "class", "n", "MAE h", "RMSE h", "bias h"]
    text = text_table(
        headers, [[r["Model"], r["Class"], r["n"], r["mae"], r["rmse"], r["bias"]] for r in rows]
    )
    logger.info("\n%s", text)
    return 0


def against_baseline(arguments: argparse.Namespace) -> int:
    """Compare a multi-task run with a classifier over sliding windows: a table and a picture."""
    models = {
        "multitask": one_table(list(load_folds(arguments.multitask_dir).values())),
        "baseline": one_table(list(load_folds(arguments.baseline_dir).values())),
    }
    output = getattr(arguments, "output_dir", None) or arguments.multitask_dir
    content = windows_of_models(common_frames(models), WindowsConfig())
    rows = [[name, *(fold_summary([v for v in c["metrics"][m] if v is not None])["mean"] for m in METRICS)]
            for name, c in content.items()]  # fmt: skip
    logger.info("mean over windows\n%s", text_table(["model", *METRICS], rows))
    write_json(output / "multitask_vs_baseline_temporal.json", content)
    overlay(output / "multitask_vs_baseline_temporal.png", content)
    return 0


def fair_testset(arguments: argparse.Namespace) -> int:
    """Run a multi-task model and a classifier on identical frames and compare them window by window."""
    from infection_mt.studies.fold_inference import folds_config, predict_folds, with_test_hours

    sides = {
        "multitask": (arguments.multitask_dir, arguments.multitask_config),
        "baseline": (arguments.baseline_ckpt_dir, arguments.baseline_config),
    }
    models = {}
    for name, (folder, file) in sides.items():
        folds = find_checkpoints(folder)
        config = with_test_hours(folds_config(folds, file), arguments.test_start, arguments.test_end)
        found = list(predict_folds(folds, config, device=arguments.device).values())
        models[name] = one_table(found)
    models = common_frames(models)
    logger.info("%d frames that both models were tested on", len(models["multitask"]))
    windows = WindowsConfig(
        size_hours=arguments.window_size,
        stride_hours=arguments.stride,
        start_hour=arguments.test_start,
        end_hour=arguments.test_end,
    )
    output = arguments.output_dir or arguments.multitask_dir
    content = windows_of_models(models, windows)
    metrics = {name: evaluate_predictions(p) for name, p in models.items()}
    report = {
        "test_start": arguments.test_start,
        "test_end": arguments.test_end,
        "window_size": arguments.window_size,
        "stride": arguments.stride,
        "n_frames": len(models["multitask"]),
        **{name: {**c, "overall": metrics[name]} for name, c in content.items()},
        "comparison": compare_models(models),
    }
    write_json(output / "fair_temporal_metrics.json", report)
    overlay(output / "fair_temporal_comparison.png", content)
    return 0


def windows_of_models(models: Mapping[str, Predictions], config: WindowsConfig) -> dict[str, dict[str, Any]]:
    """Return the windowed metrics of models: name → ``window_centers``, ``metrics``, ``n``."""
    content = {}
    for name, predictions in models.items():
        windows = window_predictions(predictions, config)
        centers, lists = window_lists(windows)
        content[name] = {"window_centers": centers, "metrics": lists, "n": [w.n for w in windows]}
    return content


def overlay(path: Path, content: Mapping[str, Mapping[str, Any]], *, title: str = "") -> None:
    """Draw models over each other on the centres that all have.

    Raises:
        ValueError: They share no centre or no metric.
    """
    common = set.intersection(*({round(c, 6) for c in model["window_centers"]} for model in content.values()))
    shared = [m for m in METRICS if all(m in model["metrics"] for model in content.values())]
    if not common or not shared:
        raise ValueError(
            "the two files share no window centre or no metric: they cannot be laid over each other"
        )
    centers = sorted(common)
    figure, panels = panel_grid(len(shared))
    for axes, metric in zip(panels, shared, strict=True):
        series = {}
        for name, model in content.items():
            at = {
                round(c, 6): v for c, v in zip(model["window_centers"], model["metrics"][metric], strict=True)
            }
            series[name] = ([at[c] for c in centers], None)
        line_panel(
            axes,
            centers,
            series,
            title=LABELS[metric],
            x_label="Centre of the window (h)",
            y_label=LABELS[metric],
            limits=(0.0, 1.0),
        )
    if title:
        figure.suptitle(title)
    logger.info("wrote %s", save_figure(path, figure))


def from_json(arguments: argparse.Namespace) -> int:
    """Lay the windows of two JSON files over each other."""
    content = {
        "multitask": read_windows(arguments.multitask_json, "multitask"),
        "baseline": read_windows(arguments.baseline_json, "baseline"),
    }
    overlay(arguments.output_png, content, title=f"Multi-task and baseline{arguments.title_suffix}")
    return 0


def read_windows(path: Path, name: str) -> dict[str, Any]:
    """Read windowed metrics from any of the JSON files that runs, folds, sweeps and comparisons leave.

    Args:
        path: The file.
        name: Model of a comparison file.

    Returns:
        ``window_centers`` and ``metrics``.

    Raises:
        ValueError: The file holds no windows.
    """
    content = read_json(path)
    content = content.get(name, content)
    if "results" in content:
        results = content["results"]
        first = next(iter(results.values()))
        return {
            "window_centers": first["window_centers"],
            "metrics": {m: r["means"] for m, r in results.items()},
        }
    if "aggregated_metrics" in content and "window_centers" in content:
        metrics = {m: r["mean"] for m, r in content["aggregated_metrics"].items()}
        return {"window_centers": content["window_centers"], "metrics": metrics}
    for key in ("metrics_by_window", "metrics"):
        if isinstance(content.get(key), dict) and "window_centers" in content:
            return {"window_centers": content["window_centers"], "metrics": content[key]}
    raise ValueError(
        f"{path}: holds no windowed metrics (window_centers with metrics); found {sorted(content)}"
    )
