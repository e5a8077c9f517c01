"""The results folder: Parquet parts, each cell committed completely or not at all."""
