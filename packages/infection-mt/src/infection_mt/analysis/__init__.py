"""What a finished run shows: its log, results, tables of errors, comparisons, figures and summary."""
