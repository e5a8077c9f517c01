"""What runs the cells of a grid: this process, processes of this machine, Ray, SLURM.

Each runs the same :class:`codingbench.executors.worker.Worker`; nothing else differs.
"""
