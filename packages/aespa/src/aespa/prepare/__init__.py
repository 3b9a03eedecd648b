"""From raw downloads to the layouts that training reads."""
