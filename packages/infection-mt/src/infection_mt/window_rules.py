"""What a window of hours is: the standard and the six definitions of the original; metrics of one window."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from medshared.metrics.statistics import Interval

METRICS = ("auc", "accuracy", "f1", "precision", "recall")


@dataclass(frozen=True)
class WindowRule:
    """Which frames a window holds and when its metrics count.

    Attributes:
        interval: ``closed`` [s, s+w], ``half-open`` [s, s+w) or ``last-closed``: half-open but for the last
            window.
        min_samples: Windows with fewer frames have no metrics.
        both_classes: Windows with one class have no metrics either.
        omit: Leave windows without metrics out instead of keeping them as undefined.
        strict: Decide by p > 0.5 instead of p ≥ 0.5.
        one_class: Metrics that a window with one class keeps: all but the AUC, or the accuracy only.
        from_first_hour: Start at the earliest frame and end at the latest, whatever the settings say.
        tolerance: Added to the end when windows are laid out, in hours.
    """

    interval: Literal["closed", "half-open", "last-closed"] = "last-closed"
    min_samples: int = 1
    both_classes: bool = False
    omit: bool = False
    strict: bool = False
    one_class: Literal["all", "accuracy"] = "all"
    from_first_hour: bool = False
    tolerance: float = 1e-9


STANDARD = WindowRule()
SINGLE_RUN = WindowRule(
    "closed", omit=True, tolerance=0.0
)  # train_multitask.py, generate_temporal_analysis.py
CROSS_VALIDATION = WindowRule(
    "half-open", 10, omit=True, tolerance=0.0
)  # train_multitask_cv.py and its analysis
SLIDING = WindowRule(
    "closed", tolerance=0.0
)  # analyze_multitask_sliding_window.py, analyze_final_model_…_fast.py
FAIR = WindowRule("half-open", 10, both_classes=True, omit=True, tolerance=0.0)  # compare_…_fair_testset.py
COMPARISON = WindowRule(  # compare_all_models_*.py
    "half-open", omit=True, strict=True, one_class="accuracy", from_first_hour=True, tolerance=0.0
)
COMPREHENSIVE = WindowRule("half-open", omit=True, tolerance=1e-6)  # analyze_cv_results_comprehensive.py


@dataclass(frozen=True)
class WindowMetrics:
    """Metrics of the frames in one window; NaN where undefined.

    Attributes:
        start: First hour.
        end: Last hour.
        center: Middle in hours, the key for aligning folds.
        n: Frames.
        n_infected: Frames labelled infected.
        n_uninfected: Frames labelled uninfected.
        auc: Area under the ROC curve, NaN for one class.
        accuracy: Of the decision at the threshold.
        f1: Of the infected class.
        precision: Of the infected class.
        recall: Of the infected class.
        mae: Mean absolute time error in hours.
        rmse: Root mean squared time error in hours.
        bias: Mean of predicted − true hours.
        intervals: Clustered intervals by metric, empty unless asked for.
    """

    start: float
    end: float
    center: float
    n: int
    n_infected: int
    n_uninfected: int
    auc: float = float("nan")
    accuracy: float = float("nan")
    f1: float = float("nan")
    precision: float = float("nan")
    recall: float = float("nan")
    mae: float = float("nan")
    rmse: float = float("nan")
    bias: float = float("nan")
    intervals: dict[str, Interval] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """Return the numbers as one flat table row; intervals become ``auc_low``, ``auc_high``, …."""
        row = asdict(self)
        del row["intervals"]
        for name, interval in self.intervals.items():
            row[f"{name}_low"], row[f"{name}_high"] = interval.low, interval.high
        return row
