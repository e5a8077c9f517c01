"""Make fashion_mini from Fashion-MNIST: python make.py IDX_FOLDER OUT_FOLDER.

It has 600 training and 100 test images per class, chosen by a fixed permutation per class. Classes
alternate, so that every prefix is balanced. The same versions of numpy, Pillow and pyarrow always
write the same bytes.
"""

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64, UInt8
from PIL import Image

from codingbench.datasets.archives import read_idx

NUM_CLASSES = 10
PER_CLASS = {"train": 600, "test": 100}
PREFIX = {"train": "train", "test": "t10k"}
SEED = 2017  # arbitrary, but another seed would make another data set
SCHEMA = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "label": pa.int64(),
    }
)


def choose(labels: Int64[np.ndarray, "image"], per_class: int) -> Int64[np.ndarray, "chosen"]:
    """Choose ``per_class`` images of each class; return rows of class 0, 1, ..., 9, 0, 1, ..."""
    generator = np.random.default_rng(SEED)
    drawn = [
        generator.permutation(np.flatnonzero(labels == label))[:per_class]
        for label in range(NUM_CLASSES)
    ]
    return np.stack(drawn, axis=1).reshape(-1)


def png(pixels: UInt8[np.ndarray, "height width"]) -> bytes:
    """Return the image as a PNG file, compressed as well as Pillow can."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def make(idx_folder: Path, out_folder: Path) -> None:
    """Write train.parquet and test.parquet; ``path`` holds the row in the original files.

    Raises:
        DatasetError: an idx file is missing or broken.
    """
    for split, per_class in PER_CLASS.items():
        start = idx_folder / PREFIX[split]
        full = read_idx(
            start.with_name(f"{start.name}-images-idx3-ubyte.gz"),
            start.with_name(f"{start.name}-labels-idx1-ubyte.gz"),
            (1, 28, 28),
            60_000,
        )
        chosen = choose(full.labels, per_class)
        rows = [
            {"bytes": png(pixels[0]), "path": f"{PREFIX[split]}/{row}"}
            for row, pixels in zip(chosen, full.decode(chosen), strict=True)
        ]
        table = pa.table({"image": rows, "label": full.labels[chosen]}, schema=SCHEMA)
        # PNG files do not shrink further; row groups make a small subset quick to read
        pq.write_table(
            table, out_folder / f"{split}.parquet", compression="none", row_group_size=1_000
        )


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
