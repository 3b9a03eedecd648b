"""The on-disk formats of patches, and the samples made from them."""
