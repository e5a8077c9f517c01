"""OpenMP settings that must be in the environment before torch is imported."""

import os


def prepare_torch() -> None:
    """Shorten the time that OpenMP's threads spin at barriers, unless the user has set it.

    torch reads the variable when it loads OpenMP. With the default, two runs on one machine take
    most of each other's time.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
