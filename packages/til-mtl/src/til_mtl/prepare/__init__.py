"""From the TIGER download to patch folders."""
