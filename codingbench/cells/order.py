"""The order in which the cells of a grid run."""

from collections.abc import Iterable

from codingbench.cells.grid import Job


def by_seed(jobs: Iterable[Job]) -> list[Job]:
    """Return the jobs in the order in which they run: all of the first seed, then of the second.

    A part of a grid therefore compares all of its codings, with fewer seeds. Among the jobs of a
    seed those come first that train the longest, as far as epochs, images and T tell, so that
    processes that run side by side end at about the same time.
    """
    jobs = list(jobs)
    seeds = {seed: i for i, seed in enumerate(dict.fromkeys(job.cell.seed for job in jobs))}

    def place(job: Job) -> tuple[int, int]:
        cell = job.cell
        return seeds[cell.seed], -cell.epochs * cell.train_samples * cell.num_steps

    return sorted(jobs, key=place)
