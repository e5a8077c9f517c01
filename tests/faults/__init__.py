"""Proof that nothing is lost: real kills, signals, full disks and rival runs on small grids.

``pytest tests/faults`` is the quick form; ``pytest -m slow tests/faults`` adds 100 kills and more.
"""
