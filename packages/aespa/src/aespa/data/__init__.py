"""The on-disk formats: LIDC, REFUGE, MBHSeg and plain folders."""
