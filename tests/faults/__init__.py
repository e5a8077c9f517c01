"""Tests that nothing is lost by real kills, signals, full disks and simultaneous runs.

``pytest -m 'thorough and not slow' tests/faults`` is the quick form, which CI runs;
``pytest -m slow tests/faults`` has 100 kills and more.
"""
