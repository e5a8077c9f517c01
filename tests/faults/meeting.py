"""A coding for two runs at once: in training it waits until as many processes train as are asked
for by ``CODINGBENCH_TEST_MEETING=<count>:<folder>``, so that they certainly do it together."""

import os
import time
from pathlib import Path
from typing import Any

from codingbench.encoders.direct import DirectEncoder  # type: ignore[import-not-found, unused-ignore]


class Meeting(DirectEncoder):  # type: ignore[misc, unused-ignore]
    """Direct coding."""

    def encode(self, features: Any) -> Any:
        """The same currents at every step, once all are here."""
        if self.training and len(features) > 1:
            wait_for_others()
        return super().encode(features)


def wait_for_others() -> None:
    """Until enough processes have been here; ten minutes at most."""
    count, _, folder = os.environ.get("CODINGBENCH_TEST_MEETING", "").partition(":")
    if not folder:
        return
    (Path(folder) / str(os.getpid())).touch()
    for _ in range(60_000):
        if len(os.listdir(folder)) >= int(count):
            return
        time.sleep(0.01)
    raise TimeoutError("nobody else came")
