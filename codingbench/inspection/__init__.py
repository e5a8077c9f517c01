"""Inspection of codings before any training: what they emit, what it says about the image, cost."""
