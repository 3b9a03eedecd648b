"""The two-player window game: rules, environments, score tables, self-play."""
