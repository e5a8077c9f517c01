"""``codingbench inspect``: measures a code before any training."""
