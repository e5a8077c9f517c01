"""Being asked to stop: Ctrl-C, or a scheduler's SIGTERM."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType


class StopRequest:
    """Called, it says whether a stop was asked for; ``signal`` is what asked."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_on_signals(
    signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
) -> Iterator[StopRequest]:
    """Inside, the first of ``signals`` is a request to end at the next good place; a second one
    does what it always does. Elsewhere than in the main thread nothing changes."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def heard(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        restore()

    for number in signals:
        signal.signal(number, heard)
    try:
        yield stop
    finally:
        restore()
