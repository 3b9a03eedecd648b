"""From a whole slide to its maps, its cells and its TIL score."""
