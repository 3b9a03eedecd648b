"""The page on which a user clicks."""
