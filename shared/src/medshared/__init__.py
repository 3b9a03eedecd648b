"""What the medpapers packages share: data IO, metrics and runtime."""

__version__ = "0.1.0"
