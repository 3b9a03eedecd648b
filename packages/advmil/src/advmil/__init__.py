"""AdvMIL: adversarial multiple-instance learning for survival analysis on whole-slide images."""

__version__ = "0.1.0"
