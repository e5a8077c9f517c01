"""Ranks, statistics, bills and comparisons: data frames in, data frames out; no torch, no rich."""
