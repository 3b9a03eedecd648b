"""What lies on disk: the table of slides, splits, labels, bags of features, and the order of an epoch."""
