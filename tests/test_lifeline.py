"""A process ends with the one that started it, even if its main thread is in a call that hangs."""

import subprocess
import sys
from multiprocessing import get_all_start_methods
from pathlib import Path
from pickle import dumps

import pytest

CHILDREN = """
import time
from multiprocessing import get_context
from codingbench.runtime.lifeline import end_with_parent

def child(sent, grace_s):
    end_with_parent(before=lambda: print("parent ended", flush=True), grace_s=grace_s)
    sent.set()
    time.sleep(600)

if __name__ == "__main__":
    context = get_context({method!r})
    sent = context.Event()
    context.Process(target=child, args=(sent, 0.5)).start()
    sent.wait()
    print("ready", flush=True)
    time.sleep(600)
"""

DECODER = """
import time
from codingbench.datasets import decoding

decoding._decode_here = lambda *asked: time.sleep(600)
decoding._serve()
"""


@pytest.mark.parametrize("method", sorted({"spawn", "forkserver"} & {*get_all_start_methods()}))
def test_a_process_ends_after_its_parent_was_killed(tmp_path: Path, method: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(CHILDREN.format(method=method))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout and parent.stdout.readline() == "ready\n"
    parent.kill()
    # the child holds the pipe, too: it closes when both have ended
    assert parent.communicate(timeout=20)[0] == "parent ended\n"


def test_a_decoder_of_png_files_ends_with_its_input() -> None:
    decoder = subprocess.Popen(
        [sys.executable, "-c", DECODER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert decoder.stdin
    decoder.stdin.write(dumps(([b""], (1, 2, 2))))
    decoder.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        decoder.wait(2)
    assert decoder.communicate(timeout=20)[0] == b""
    assert decoder.returncode == 1
