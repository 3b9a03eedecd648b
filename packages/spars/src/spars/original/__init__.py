"""The original's behaviour where it differs from the corrected one, under the original's names."""
