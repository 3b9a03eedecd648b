"""Names, flags and defaults of the original's study scripts; what they do lives in the modules beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infection_mt.studies import options as o
from infection_mt.studies.options import Script, count, folder, number, option, switch

BASELINE = "configs/resnet50_baseline.yaml"
CONFIG = folder("--config", "configuration (default: the one stored with the checkpoints)")
OUTPUT_ALIAS = option("--output-dir", dest="output", type=Path, help="same as --output")
EPOCHS = count("--epochs", None, "default: the configuration's")
TIME_FIELD = option(
    "--time-field", default="hours_since_start", help="number of the metadata that windows run over"
)
MATCH = switch("--match-uninfected-window", "restrict uninfected frames to the same hours")
VAL_OR_TEST = option("--split", choices=["val", "test"], default="test")
METRIC = option("--metric", choices=o.METRIC_NAMES, default="auc", help="used without --metrics")
RESULTS = (o.RESULT_DIR, o.OUTPUT_DIR)
WEIGHTS_ONLY = {"--weights-only": "checkpoints are always read without running code"}
CHECKPOINT_DIR = folder("--checkpoint-dir", "folds' checkpoints, a run, or a checkpoint", required=True)
MODELS = (
    folder("--multitask", "multi-task run or its folds"),
    folder("--multitask-conditioned", "the same with use_cls_conditioning"),
    folder("--regression-infected", "regressor trained on infected frames"),
    folder("--regression-uninfected", "regressor trained on uninfected frames"),
)
COMPARISON_DIR = folder("--output-dir", "where results go", default="outputs/model_comparison")

TRAINING = {
    "train.py": Script(
        "Train a classifier or a regressor alone, on one split or over k folds.",
        "single_task:train",
        [o.K_FOLDS, count("--fold", None, "only this fold (from 1), as a job of an array")],
        config=BASELINE,
    ),
    "analyze_interval_sweep_train.py": Script(
        "Classifiers on intervals [start, x]: trained on each (train-test), or on the longest (test-only).",
        "sweeps:interval_sweep",
        [
            option("--upper-hours", type=float, nargs="+", required=True, help="ends of the intervals"),
            number("--start-hour", 1.0, "start of the intervals"),
            VAL_OR_TEST,
            option("--mode", choices=["both", "train-test", "test-only"], default="both"),
            o.metrics(),
            METRIC,
            OUTPUT_ALIAS,
            o.SAVE_DATA,
            o.K_FOLDS,
            EPOCHS,
            MATCH,
            switch("--eval-only", "score the checkpoints of a finished sweep"),
            folder("--checkpoint-dir", "checkpoints to write, or with --eval-only to read"),
        ],
        config=BASELINE,
    ),
    "analyze_sliding_window_train.py": Script(
        "One classifier for each window of hours, tested on its own window.",
        "sweeps:sliding_sweep",
        [
            *o.windows(5.0, None, 1.0, 30.0),
            option("--window-starts", type=float, nargs="+", help="in place of start, end and stride"),
            VAL_OR_TEST,
            o.metrics(),
            METRIC,
            OUTPUT_ALIAS,
            o.SAVE_DATA,
            number("--max-hour", None, "leave out windows that end after it"),
            o.K_FOLDS,
            EPOCHS,
            MATCH,
        ],
        config=BASELINE,
    ),
}

WINDOWS = {
    "analyze_final_model_sliding_window_fast.py": Script(
        "Slide windows over the frames of a finished model, one inference a fold.",
        "temporal:final_model_windows",
        [
            CONFIG,
            CHECKPOINT_DIR,
            *o.windows(5.0, None, 1.0, 46.0),
            option("--window-starts", type=float, nargs="+", help="in place of start, end and stride"),
            o.SPLIT,
            o.metrics("auc", "accuracy", "f1"),
            o.OUTPUT_DIR,
            o.SAVE_DATA,
            number("--max-hour", None, "leave out windows that end after it"),
            o.K_FOLDS,
            TIME_FIELD,
        ],
        device=True,
    ),
    "analyze_multitask_sliding_window.py": Script(
        "Slide windows over the test frames of a multi-task model.",
        "temporal:multitask_windows",
        [
            CONFIG,
            CHECKPOINT_DIR,
            *o.windows(6.0, 3.0, 0.0, 48.0),
            o.metrics(*o.METRIC_NAMES),
            o.OUTPUT_DIR,
            TIME_FIELD,
        ],
        device=True,
    ),
    "generate_temporal_analysis.py": Script(
        "Write temporal_metrics.json and its picture again from saved predictions.",
        "temporal:rewrite_windows",
        [o.RESULT_DIR, *o.windows(6.0, 3.0, 0.0, 48.0)],
    ),
    "analyze_multitask_cv_temporal.py": Script(
        "Write the windows of all folds and their means from saved predictions (missing ones are made first).",
        "temporal:rewrite_fold_windows",
        [
            o.RESULT_DIR,
            number("--window-size", 6.0, "hours"),
            number("--stride", 3.0, "hours"),
            number("--max-time", 48.0, "latest end of a window"),
        ],
        device=True,
    ),
    "test_folds.py": Script(
        "Score the checkpoints of all folds on one side of their splits.",
        "fold_scores:evaluate",
        [
            CONFIG,
            folder("--run-dir", "folds' checkpoints", required=True),
            o.SPLIT,
            folder("--output", "JSON file (default: RUN_DIR/fold_eval.json)"),
        ],
        device=True,
        dead=WEIGHTS_ONLY,
    ),
    "generate_prediction_plot.py": Script(
        "Predict the test frames of a run again and scatter predicted against true hours.",
        "regeneration:predict_and_plot",
        [
            o.RESULT_DIR,
            option("--checkpoint-name", default="best.pt"),
            option("--output-name", default="prediction_scatter_regression.png"),
        ],
        device=True,
    ),
    "regenerate_cv_predictions.py": Script(
        "Write the test predictions of the folds that lack them.",
        "regeneration:regenerate",
        [o.RESULT_DIR, CONFIG],
        device=True,
    ),
}

ERRORS = {
    "analyze_cv_results_comprehensive.py": Script(
        "Eight pictures and reports of the errors of a run or its folds.", "errors:comprehensive", RESULTS
    ),
    "run_full_cv_analysis.py": Script(
        "Make missing predictions, then the comprehensive analysis.",
        "errors:full_cv",
        [*RESULTS, CONFIG],
        device=True,
    ),
    "generate_cv_visualizations.py": Script(
        "Curves, bars, scatter, confusion matrices and error distributions of all folds.",
        "errors:cv_pictures",
        RESULTS,
    ),
    "analyze_regression_errors.py": Script(
        "Time errors by time, confidence and correctness; the surest mistakes.",
        "errors:regression_errors",
        [
            *RESULTS,
            count("--top-k", 20, "rows of the tables of the worst frames"),
            number("--high-conf-threshold", 0.9, "confidence from which a mistake is listed"),
        ],
    ),
    "analyze_regression_by_class.py": Script(
        "Time errors of each class in periods of the recording.",
        "periods:by_class",
        [*RESULTS, switch("--faithful", "also the original's t test over frames")],
    ),
    "analyze_valley_period_cv.py": Script(
        "Time errors of all folds in the valley of 13–19 h and around it.",
        "periods:valley",
        [
            *RESULTS,
            count("--num-folds", None, "use the first so many folds (default: all)"),
            number("--valley-start", 13.0, "hours of the true time"),
            number("--valley-end", 19.0),
            number("--early-cut", 6.0),
            number("--mid-start", 6.0),
            number("--mid-end", 13.0),
            option("--output-name", default="valley_period_analysis_cv"),
            switch("--faithful", "also the original's t test over frames"),
        ],
    ),
    "generate_regression_residual_plots.py": Script(
        "Residuals over time, their distribution, their mean and spread across folds.",
        "errors:residuals",
        [*RESULTS, number("--bin-size", 3.0, "hours")],
    ),
    "analyze_multitask_position_errors.py": Script(
        "Errors of each field of view (plate, well and position) or of each stack.",
        "errors:field_errors",
        [
            *RESULTS,
            option("--by", choices=["position", "tiff"], default="position"),
            count("--top-k", 25, "fields in the picture"),
        ],
    ),
    "visualize_multitask_diagnostics.py": Script(
        "Confusion and residual over time, scatter, calibration overall and before 6 h.",
        "errors:diagnostics",
        RESULTS,
    ),
    "extract_error_montages.py": Script(
        "Tables and montages of the surest mistakes and the largest time errors.",
        "montages:extract",
        [
            folder("--run-dir", "run with predictions", required=True),
            folder("--out-dir", "default: RUN_DIR/error_montages"),
            folder("--metadata-jsonl", "descriptions of the frames (default: the run's)"),
            count("--cls-topk", 13),
            count("--reg-topk", 5),
            count("--montage-cols", 5),
        ],
    ),
}

COMPARISONS = {
    "compare_regression_performance.py": Script(
        "Time errors of a multi-task model and of class-specific regressors.",
        "model_comparisons:regression_performance",
        [MODELS[0], *MODELS[2:], COMPARISON_DIR],
    ),
    "compare_multitask_vs_baseline.py": Script(
        "A multi-task run and a classifier over sliding windows, from saved predictions.",
        "model_comparisons:against_baseline",
        [
            folder("--multitask-dir", "run or folds", required=True),
            folder("--baseline-dir", "run or folds", required=True),
            folder("--output-dir", "default: MULTITASK_DIR"),
        ],
    ),
    "compare_multitask_vs_baseline_fair_testset.py": Script(
        "Run a multi-task model and a classifier on identical frames and compare their windows.",
        "model_comparisons:fair_testset",
        [
            folder("--multitask-dir", "run or folds", required=True),
            folder("--multitask-config", "default: the one stored with the checkpoints"),
            folder("--baseline-ckpt-dir", "folds' checkpoints", required=True),
            folder("--baseline-config", "default: the one stored with the checkpoints"),
            number("--test-start", 1.0, "first hour of the frames"),
            number("--test-end", 48.0, "last hour"),
            number("--window-size", 6.0, "hours"),
            number("--stride", 3.0, "hours"),
            folder("--output-dir", "default: MULTITASK_DIR"),
        ],
        device=True,
    ),
    "plot_multitask_vs_baseline_from_json.py": Script(
        "Lay the windows of two JSON files over each other.",
        "model_comparisons:from_json",
        [
            folder("--baseline-json", "windows of the classifier", required=True),
            folder("--multitask-json", "windows of the multi-task model", required=True),
            folder("--output-png", "picture", default="multitask_vs_baseline.png"),
            option("--title-suffix", default="", help="after the title"),
        ],
    ),
    "compare_all_models_comprehensive.py": Script(
        "All model families: bars, windows, time errors, tables, tests over stacks.",
        "model_comparisons:all_models",
        [*MODELS, COMPARISON_DIR],
    ),
    "compare_all_models_comprehensive_improved.py": Script(
        "All model families and a classifier: the same pictures, paired tests over stacks.",
        "model_comparisons:all_models_improved",
        [*MODELS, folder("--single-classification", "classifier or its folds"), COMPARISON_DIR],
    ),
}

PICTURES = {
    "visualize_sliding_window.py": Script(
        "Draw the curves of a sweep's JSON file.",
        "sweep_viewing:draw",
        [
            folder("--data", "interval_sweep_data.json or sliding_window_…_data.json", required=True),
            option("--metrics", nargs="+", help="default: all of the file"),
            folder("--output-dir", "default: beside the data"),
            switch("--hide-points", "lines only"),
            switch("--combined-only", "no picture for each metric"),
        ],
        dead={
            "--color-scheme": "the colours are those of all figures, distinct for colour-blind readers",
            "--layout": "panels are laid out by their number",
        },
    ),
    "visualize_cam.py": Script(
        "Grad-CAM pictures of a checkpoint, for the class and the time output.",
        "cams:draw",
        [
            CONFIG,
            folder("--checkpoint", "weights", required=True),
            option("--split", choices=["train", "val", "test"], default="val"),
            count("--num-samples", 8),
            count("--seed", 42),
            folder("--output-dir", "where pictures go", default="cam_outputs"),
            count("--num-folds", 1, "folds that the data are divided into"),
            count("--fold-index", 0, "from 0"),
            option("--cmap", default="jet", help="Matplotlib colour map"),
        ],
        device=True,
        dead=WEIGHTS_ONLY,
    ),
    "load_checkpoint_example.py": Script(
        "List the checkpoints of a sweep with their interval and scores, best first.",
        "sweep_viewing:table",
        [
            folder("--checkpoint-dir", "a sweep or its checkpoints", required=True),
            option("--metric", choices=o.METRIC_NAMES, default="auc"),
            folder("--output", "also write the table as JSON"),
        ],
    ),
    "validate_on_run2.py": Script(
        "An ensemble of folds on a whole plate whose wells have known conditions.",
        "plate:validate",
        [
            folder("--model-dir", "folds' checkpoints", required=True),
            folder("--data-dir", "folder of stacks", required=True),
            option(
                "--plate-layout",
                nargs="+",
                metavar="COND=WELL,WELL",
                default=["moi5=a1,b1,c1", "moi1=a2,b2,c2", "moi01=a3,b3,c3", "mock=a4,b4,c4"],
                help="wells of each condition; mock is the uninfected one",
            ),
            count("--stride", 2, "use every n-th page"),
            count("--max-positions", 12, "positions drawn of each well; 0 = all"),
            count("--seed", 42, "of that draw"),
            number("--frames-per-hour", 2.0),
            folder("--output-dir", "where results go", default="outputs/run2_validation"),
            switch("--resume", "reuse results of unchanged stacks"),
            o.SHARD,
        ],
        device=True,
    ),
}

SCRIPTS: dict[str, Script] = {**TRAINING, **WINDOWS, **ERRORS, **COMPARISONS, **PICTURES}


def run(name: str, argv: Sequence[str] | None = None) -> int:
    """Run an original-style script.

    Args:
        name: Its file name.
        argv: Arguments; None takes those of the process.

    Returns:
        Exit code.
    """
    return SCRIPTS[name].run(name, argv)
