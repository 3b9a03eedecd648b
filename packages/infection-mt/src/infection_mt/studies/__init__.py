"""The original's studies around the core: sweeps, windows, errors, comparisons, pictures, under its script names."""
