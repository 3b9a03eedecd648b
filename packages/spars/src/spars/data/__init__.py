"""The on-disk formats of the method: cases, labels, splits, and the working grid."""
