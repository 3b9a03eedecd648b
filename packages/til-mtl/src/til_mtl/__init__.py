"""Tissue segmentation, lymphocyte detection and TIL scores on whole-slide images."""

__version__ = "0.1.0"
