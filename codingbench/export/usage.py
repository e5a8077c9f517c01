"""Python snippets for model cards that load an exported file and run it."""

from collections.abc import Callable
from typing import Final

from codingbench.encoder import FeatureEncoder
from codingbench.export.model import Model

_NETWORK = """\
task = task_of(get_info("{dataset}"), num_steps={num_steps})
encoder, backbone = ENCODERS.resolve("{encoder}"), BACKBONES.resolve("{backbone}")
network = build_network(encoder, backbone, task, seed={seed}{chosen})"""

_STATE_DICT = """\
import torch

from codingbench.backbone import build_network
from codingbench.cells.network import task_of
from codingbench.datasets import fetch, get_info, load
from codingbench.training.evaluation import evaluate, stream
from codingbench.registry import BACKBONES, ENCODERS{neurons}

{network}
network.load_state_dict(torch.load("{file}", weights_only=True))
network.eval()

images = torch.rand({shape})  # a batch of images in [0, 1]; the network standardises them itself
with torch.no_grad():
    logits = network(images, torch.Generator().manual_seed(0))  # [T, B, K], of every step
print(logits.mean(0).argmax(1))

test = load(fetch("{dataset}", None), "test", {test_samples})
print(evaluate(network, test, stream({seed}, "test"), "{precision}").accuracy[-1])
"""

_NIR_FROM_IMAGE = """\
import nir
import torch

from codingbench.export.execution import execute

graph = nir.read("{file}")
mean, std = (torch.tensor(graph.metadata[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
images = torch.rand({shape}, dtype=torch.float64)  # a batch of images in [0, 1]
inputs = ((images - mean) / std).expand({num_steps}, *images.shape)  # the same at every step
logits = execute(graph, inputs, graph.metadata["dt"])["output"]  # [T, B, K], of every step
print(logits.mean(0).argmax(1))
"""

_NIR_FROM_CODE = """\
import nir
import torch

from codingbench.backbone import build_network
from codingbench.cells.network import task_of
from codingbench.datasets import get_info
from codingbench.export.execution import execute
from codingbench.registry import BACKBONES, ENCODERS{neurons}

{network}.double()
images = torch.rand({shape}, dtype=torch.float64)  # a batch of images in [0, 1]
inputs = network.encoder.spikes(images, torch.Generator().manual_seed(0))  # the code

graph = nir.read("{file}")
logits = execute(graph, inputs, graph.metadata["dt"])["output"]  # [T, B, K], of every step
print(logits.mean(0).argmax(1))
"""


def snippet(form: str, model: Model) -> str:
    """Return Python code that loads the exported file and runs it on images."""
    return _SNIPPETS[form](model)


def _fill(template: str, model: Model) -> str:
    cell = model.job.cell
    own = model.job.neuron is None
    values = vars(cell) | {
        "neurons": "" if own else ", NEURONS",
        "chosen": "" if own else f', neuron=NEURONS.resolve("{cell.neuron}")',
        "file": model.file,
        "shape": ", ".join(map(str, (8, *model.job.info.shape))),
    }
    return template.format(**values, network=_NETWORK.format(**values))


def _nir(model: Model) -> str:
    starts_at_image = issubclass(model.job.encoder.cls, FeatureEncoder)
    return _fill(_NIR_FROM_IMAGE if starts_at_image else _NIR_FROM_CODE, model)


_SNIPPETS: Final[dict[str, Callable[[Model], str]]] = {
    "state_dict": lambda model: _fill(_STATE_DICT, model),
    "nir": _nir,
}
