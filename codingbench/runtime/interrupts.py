"""Requests to stop: Ctrl-C, or SIGTERM from a scheduler."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType


class StopRequest:
    """A flag that a signal sets; calling it returns true once ``signal`` is set."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_on_signals(
    signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
) -> Iterator[StopRequest]:
    """Turn the first of ``signals`` into a request to stop, for as long as the context lasts.

    A second signal has its usual effect. Outside the main thread nothing changes, because Python
    allows signal handlers only there.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        restore()

    for number in signals:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()
