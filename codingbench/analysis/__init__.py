"""Data frames in, data frames out: ranks, statistics, bills and comparisons. No torch, no rich."""
