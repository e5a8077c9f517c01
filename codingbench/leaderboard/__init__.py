"""Finished cells, averaged, ranked and shown."""
