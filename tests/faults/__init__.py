"""Proof that nothing is lost: real kills, signals, full disks and rival runs on small grids.

``pytest -m 'thorough and not slow' tests/faults`` is the quick form, which CI runs;
``pytest -m slow tests/faults`` has 100 kills and more.
"""
