"""Metrics of the classifier against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from spars.classifier_metrics import decision_metrics, window_metrics


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10**6))
def test_equals_scikit_learn(n, seed):
    rng = np.random.default_rng(seed)
    score, target = rng.integers(0, 11, n) / 10, rng.integers(0, 2, n)
    found, said = decision_metrics(score, target), score > 0.5
    assert found["accuracy"] == oracle.accuracy_score(target, said)
    two = target.min() != target.max()
    assert found["auc"] == (pytest.approx(oracle.roc_auc_score(target, score)) if two else None)
    expected = {
        "precision": oracle.precision_score(target, said) if said.any() else None,
        "sensitivity": oracle.recall_score(target, said) if target.any() else None,
        "specificity": oracle.recall_score(target, said, pos_label=0) if not target.all() else None,
    }
    assert {key: found[key] for key in expected} == expected


def test_what_is_undefined_is_null():
    """The original prints 0 for each of these."""
    assert decision_metrics([0.1, 0.2], [0, 0]) == {
        "auc": None,
        "accuracy": 1.0,
        "precision": None,
        "sensitivity": None,
        "specificity": 1.0,
    }
    assert decision_metrics([0.5], [1])["sensitivity"] == 0  # equal logits mean "no tumour"


def test_windows_by_what_they_hold():
    score, voxels = np.array([0.9, 0.1, 0.8, 0.3, 0.6]), np.array([80, 0, 50, 1, 0])
    found = window_metrics(score, voxels)
    assert found["window_auc"] == pytest.approx(5 / 6)
    assert found["window_auc_50_voxels"] == 1
    assert found["score_gap"] == pytest.approx((0.9 + 0.8 + 0.3) / 3 - 0.35)
    assert window_metrics(score, np.zeros(5, np.int64)) == {
        "window_auc": None,
        "window_auc_50_voxels": None,
        "score_gap": None,
    }
