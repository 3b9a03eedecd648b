"""Infected/uninfected classification and time regression on time-lapse cell images."""

__version__ = "0.1.0"
