"""Results as Parquet parts, committed whole or not at all."""
