"""The examples in the docstrings run."""

import doctest
import importlib

import pytest

MODULES = (
    "aggregation",
    "analysis.comparison",
    "analysis.display",
    "analysis.errors",
    "analysis.results_file",
    "analysis.summary",
    "analysis.training_log",
    "evaluation",
    "operating_points",
    "probabilities",
    "sample_keys",
    "time_errors",
    "uncertainty",
    "windows",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"infection_mt.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
