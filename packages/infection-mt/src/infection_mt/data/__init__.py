"""From stacks on disk to batches: stacks, frame selection, splits, tables, frames and data sets."""
