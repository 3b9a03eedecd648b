"""Interactive segmentation that follows the rater whom the user prefers, on MedSAM."""

__version__ = "0.1.0"
