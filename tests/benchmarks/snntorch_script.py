"""The grid as a straightforward snntorch script: the other side of ``bench_grid.py``.

    python tests/benchmarks/snntorch_script.py DATA --encoders direct,gac --T 2,4 --epochs 1

DATA is a folder with ``train*.parquet`` and ``test*.parquet``. Nothing of codingbench is imported.
Data come from a ``Dataset`` and a ``DataLoader`` through torchvision's transforms, the network is
made of layers of torch and ``snntorch.Leaky``, and ``forward`` loops over time with all layers
inside, as in snntorch's tutorials. Architecture, neuron, optimiser, schedule, batch size and
the choice of images are those of codingbench's ``csnn`` and recipe ``quick``; with its weights the
network gives its logits. Because of the loop, batch normalisation sees one step at a time, and its
running statistics mix steps that differ. This costs the spike codes accuracy after few epochs. The
script reports the test accuracy and, by hooks on the neurons, the spikes per test image. It counts
no operations.
"""

import argparse
import io
import json
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import snntorch
import torch
from PIL import Image
from snntorch import spikegen, surrogate
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

STATISTICS = {  # images by channels: mean and standard deviation
    1: ((0.2877,), (0.3534,)),
    3: ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
WIDTH, BATCH_SIZE, EVALUATION_BATCH, VAL_FRACTION, WARMUP_EPOCHS = 16, 50, 200, 0.1, 0.5


Sample = tuple[Image.Image, int]


class Images(Dataset[tuple[Tensor, int]]):
    """Decoded images in memory, as torchvision's CIFAR100 keeps them."""

    def __init__(self, samples: list[Sample], transform: Any) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.samples[index]
        return self.transform(image), label


def read(folder: Path, split: str, count: int) -> list[Sample]:
    """Read the first images of each class in turn, so that classes are balanced."""
    frame = pd.concat(map(pd.read_parquet, sorted(folder.glob(f"{split}*.parquet"))))
    frame = frame.rename(columns={"img": "image", "fine_label": "label"})
    frame["rank"] = frame.groupby("label").cumcount()
    chosen = frame.sort_values(["rank", "label"]).head(count)
    images = (Image.open(io.BytesIO(row["bytes"])).copy() for row in chosen["image"])
    return list(zip(images, chosen["label"].tolist(), strict=True))


def spike(mem: Tensor, grad: Tensor, spk: Tensor) -> Tensor:
    """The triangle surrogate: gradient max(0, 1 - |mem - threshold|)."""
    return grad * (1 - mem.abs()).clamp(min=0)


def leaky() -> nn.Module:
    grad = surrogate.custom_surrogate(spike)
    neuron: nn.Module = snntorch.Leaky(
        beta=0.5, spike_grad=grad, reset_mechanism="zero", reset_delay=False, init_hidden=True
    )
    return neuron


def conv_bn(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    )


class Block(nn.Module):
    """LIF-conv-BN beside a 1x1 shortcut on the membrane current; one time step."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lif = leaky()
        self.conv = conv_bn(channels, 2 * channels, 3, 2)
        self.shortcut = conv_bn(channels, 2 * channels, 1, 2)

    def forward(self, cur: Tensor) -> Tensor:
        out: Tensor = self.conv(self.lif(cur)) + self.shortcut(cur)
        return out


class Net(nn.Module):
    """The network csnn with one of four codings, all inside the loop over time."""

    def __init__(self, encoder: str, num_steps: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.encoder, self.num_steps = encoder, num_steps
        self.stem = conv_bn(channels, WIDTH, 3)
        self.blocks = nn.Sequential(*(Block(WIDTH * 2**i) for i in range(3)))
        self.lif = leaky()
        self.linear = nn.Linear(8 * WIDTH, num_classes)
        if encoder in ("direct", "gac"):
            self.code_lif = leaky()
        if encoder == "gac":
            hidden = max(1, num_steps // 2)
            self.temporal = nn.Sequential(
                nn.Linear(num_steps, hidden, bias=False),
                nn.ReLU(),
                nn.Linear(hidden, num_steps, bias=False),
            )
            self.spatial = nn.Sequential(
                nn.ZeroPad2d((1, 2, 1, 2)),
                nn.Conv2d(WIDTH, WIDTH, 4, bias=False),
                nn.ReLU(),
                nn.ZeroPad2d((1, 2, 1, 2)),
                nn.Conv2d(WIDTH, WIDTH, 4, bias=False),
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean of the logits over time."""
        for module in self.modules():
            if isinstance(module, snntorch.Leaky):
                module.reset_mem()
        if self.encoder == "gac":
            return self.forward_gac(images)
        if self.encoder == "rate":
            pixels = spikegen.rate(images, num_steps=self.num_steps)
        elif self.encoder == "latency":
            pixels = spikegen.latency(
                images, self.num_steps, threshold=0.01, linear=True, normalize=True, clip=True
            )
        logits = []
        for step in range(self.num_steps):
            if self.encoder == "direct":
                cur = self.code_lif(self.stem(images))
            else:
                cur = self.stem(pixels[step])
            logits.append(self.head(cur))
        return torch.stack(logits).mean(0)

    def forward_gac(self, images: Tensor) -> Tensor:
        """Compute the features of all steps first, because the temporal attention needs them."""
        features = [self.stem(images) for _ in range(self.num_steps)]
        means = torch.stack([y.mean((1, 2, 3)) for y in features], dim=1)  # (batch, time)
        largest = torch.stack([y.amax((1, 2, 3)) for y in features], dim=1)
        attention = self.temporal(means) + self.temporal(largest)
        logits = []
        for step, y in enumerate(features):
            gate = torch.sigmoid(attention[:, step, None, None, None] * self.spatial(y))
            logits.append(self.head(self.code_lif(y) * gate))
        return torch.stack(logits).mean(0)

    def head(self, cur: Tensor) -> Tensor:
        """Return the logits of one step."""
        logits: Tensor = self.linear(self.lif(self.blocks(cur)).mean((2, 3)))
        return logits


def accuracy(net: Net, loader: Any) -> float:
    """Return the share of correctly classified images."""
    net.eval()
    hits = count = 0
    with torch.no_grad():
        for images, labels in loader:
            hits += int((net(images).argmax(1) == labels).sum())
            count += len(labels)
    return hits / count


def train(net: Net, loaders: dict[str, Any], epochs: int) -> None:
    """Train with AdamW, linear warm-up and half a cosine; validate after each epoch."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=1e-2)
    batches = len(loaders["train"])

    def factor(step: int) -> float:
        epoch = step / batches
        if epoch < WARMUP_EPOCHS:
            return (epoch + 1 / batches) / (WARMUP_EPOCHS + 1 / batches)
        return 0.5 * (1 + math.cos(math.pi * (epoch - WARMUP_EPOCHS) / (epochs - WARMUP_EPOCHS)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for epoch in range(epochs):
        net.train()
        for images, labels in loaders["train"]:
            loss = nn.functional.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        print(f"  epoch {epoch + 1}: validation accuracy {accuracy(net, loaders['val']):.4f}")


def test(net: Net, loader: Any) -> dict[str, float]:
    """Return the accuracy and the spikes per image."""
    spikes = 0.0

    def count(module: nn.Module, args: Any, spk: Tensor) -> None:
        nonlocal spikes
        spikes += float(spk.sum())

    neurons = [module for module in net.modules() if isinstance(module, snntorch.Leaky)]
    handles = [neuron.register_forward_hook(count) for neuron in neurons]
    found = accuracy(net, loader)
    for handle in handles:
        handle.remove()
    return {"accuracy": found, "spikes_per_image": spikes / len(loader.dataset)}


def make_loaders(splits: dict[str, list[Sample]], encoder: str) -> dict[str, Any]:
    """Shuffle training images; standardise pixels except for spike codes, which need raw ones."""
    steps: list[Any] = [transforms.ToTensor()]
    if encoder in ("direct", "gac"):
        channels = len(splits["test"][0][0].getbands())
        steps.append(transforms.Normalize(*STATISTICS[channels]))
    return {
        name: DataLoader(
            Images(samples, transforms.Compose(steps)),
            batch_size=BATCH_SIZE if name == "train" else EVALUATION_BATCH,
            shuffle=name == "train",
            num_workers=2,
        )
        for name, samples in splits.items()
    }


def main() -> None:
    """Train and test every cell; print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoders", default="direct,rate,latency,gac")
    parser.add_argument("--T", default="4")
    parser.add_argument("--train-samples", type=int, default=10_000)
    parser.add_argument("--test-samples", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    samples = read(options.data, "train", options.train_samples)
    held = max(1, round(VAL_FRACTION * len(samples)))
    splits = {
        "train": samples[:-held],
        "val": samples[-held:],
        "test": read(options.data, "test", options.test_samples),
    }
    num_classes = 1 + max(label for _, label in samples)
    channels = len(samples[0][0].getbands())
    cells = []
    for encoder in options.encoders.split(","):
        loaders = make_loaders(splits, encoder)
        for num_steps in map(int, options.T.split(",")):
            start = time.perf_counter()
            torch.manual_seed(options.seed)
            net = Net(encoder, num_steps, channels, num_classes)
            train(net, loaders, options.epochs)
            cell = {"encoder": encoder, "num_steps": num_steps, **test(net, loaders["test"])}
            cells.append(cell | {"wall_s": time.perf_counter() - start})
            print(cells[-1], flush=True)
    if options.json:
        options.json.write_text(json.dumps(cells, indent=2) + "\n")


if __name__ == "__main__":
    main()
