"""Processes that end soon after the process that started them, whatever ended that one.

A process that is killed cannot end the processes that it has started. Each of them therefore
watches a pipe whose other end only its parent holds: the kernel closes it with the parent.
"""

import os
import threading
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Final

PARENT_ENDED: Final = 1
"""Exit status of a process that ended because its parent did."""


def end_with_parent(
    before: Callable[[], object] = lambda: None, grace_s: float = 0.0
) -> threading.Thread:
    """Watch the parent of this process of ``multiprocessing``, and end the process after it.

    The parent is the one that asked for the process, also where a fork server made it.

    Args:
        before: called once the parent has ended.
        grace_s: seconds that this process then has to end by itself.
    """
    parent = parent_process()
    assert parent is not None, "this process was not started by multiprocessing"
    return end_after(lambda: wait([parent.sentinel]), before=before, grace_s=grace_s)


def end_with_input() -> threading.Thread:
    """End this process when its standard input ends, which the parent must keep open."""
    return end_after(lambda: os.read(0, 1))


def end_after(
    watch: Callable[[], object],
    before: Callable[[], object] = lambda: None,
    grace_s: float = 0.0,
) -> threading.Thread:
    """End this process, from another thread, ``grace_s`` after ``watch`` returns."""

    def end() -> None:
        watch()
        before()
        time.sleep(grace_s)
        os._exit(PARENT_ENDED)  # the main thread may be in a call that never returns

    thread = threading.Thread(target=end, name="lifeline", daemon=True)
    thread.start()
    return thread
