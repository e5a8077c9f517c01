"""A coding whose training waits until several processes train at the same time.

``CODINGBENCH_TEST_MEETING=<count>:<folder>`` sets the number of processes, and a folder where each
leaves a file.
"""

import os
import time
from pathlib import Path
from typing import Any

from codingbench.encoders.direct import DirectEncoder  # type: ignore[import-not-found, unused-ignore]


class Meeting(DirectEncoder):  # type: ignore[misc, unused-ignore]
    """Direct coding."""

    def encode(self, features: Any) -> Any:
        """Return the same currents at every step, once all processes have arrived."""
        if self.training and len(features) > 1:
            wait_for_others()
        return super().encode(features)


def wait_for_others() -> None:
    """Wait until enough processes have arrived, for ten minutes at most."""
    count, _, folder = os.environ.get("CODINGBENCH_TEST_MEETING", "").partition(":")
    if not folder:
        return
    (Path(folder) / str(os.getpid())).touch()
    for _ in range(60_000):
        if len(os.listdir(folder)) >= int(count):
            return
        time.sleep(0.01)
    raise TimeoutError("no other process arrived")
