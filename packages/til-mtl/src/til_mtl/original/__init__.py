"""The names of the original modules, for code that imports them."""
