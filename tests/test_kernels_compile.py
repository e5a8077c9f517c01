"""The Triton kernels compile for GPUs that are not there; nothing of this needs a device."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")

SCRIPT = """
import sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from codingbench.neurons import MultiStepLeaky, ahead, fused, launch, layout


class NoDevice:
    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", int(sys.argv[1]), 32)


driver.set_active(NoDevice())
fused.is_available = lambda device: True
layout.keeps_channels_last = lambda *where: True
compiled = []
for name in ("statistics", "finish_statistics", "fire", "unpack", "adjoint", "finish_sums",
             "gradient_of_input"):
    def warmup(*args, name=name, original=getattr(launch.kernels(), name).warmup, **constants):
        kernel = original(*args, **constants)
        compiled.append((name, constants.get("RESET"), kernel.asm))
        return kernel
    getattr(launch.kernels(), name).warmup = warmup

y = layout.to_channels_last(torch.zeros(3, 4, 16, 6, 6)).requires_grad_()
with ahead.compiling():
    for reset, is_delayed in (("zero", False), ("subtract", False), ("subtract", True)):
        neuron = MultiStepLeaky(reset_mechanism=reset, reset_delay=is_delayed)
        for residual in (None, y.detach()):
            spk, cur = fused.norm_fire(y, torch.nn.BatchNorm2d(16), neuron.lif(), residual)
            (spk.sum() if cur is None else spk.sum() + cur.sum()).backward()
        neuron(y)
for name, reset, asm in compiled:
    assert asm["cubin"] and f".target sm_{sys.argv[1]}" in asm["ptx"], name
    if name in ("fire", "adjoint"):  # only the undelayed reset to zero multiplies and adds at once
        assert ("fma.rn.f32" in asm["ptx"]) == (reset == "zero"), (name, reset)
print(len(compiled), sorted({name for name, _, _ in compiled}))
"""


@pytest.mark.thorough
@pytest.mark.parametrize("capability", ["80", "90"])
def test_kernels_compile_and_contract_no_product_that_decides_a_spike(capability: str) -> None:
    command = [sys.executable, "-c", SCRIPT, capability]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    names = ["adjoint", "finish_statistics", "finish_sums", "fire", "gradient_of_input"]
    assert done.stdout.strip().endswith(str([*names, "statistics"]))
