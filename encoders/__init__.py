"""Input codings, one per file; the file's name is the coding's name."""
