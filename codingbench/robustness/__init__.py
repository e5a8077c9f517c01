"""Robustness of finished cells: their accuracy under noise, damaged codes and attacks."""
