"""Whole slides: tissue maps, cells and TIL scores, in memory that does not depend on the slide's size."""
