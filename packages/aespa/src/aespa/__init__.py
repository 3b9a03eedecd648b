"""Interactive segmentation that follows the rater whom the user prefers, on MedSAM."""
