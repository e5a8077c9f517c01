"""Executors: they run the cells of a grid in this process, in several processes, on Ray or SLURM.

All of them run :class:`codingbench.executors.worker.Worker`, so cells have the same numbers
everywhere.
"""
