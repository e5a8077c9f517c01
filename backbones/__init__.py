"""Backbones, one per file; the file's name is the backbone's name."""
