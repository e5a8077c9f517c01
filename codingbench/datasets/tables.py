"""Data sets of Hugging Face's library ``datasets``, read without it.

    parquet:FOLDER    Parquet shards whose names hold train, test or validation
    hf:FOLDER         what ``save_to_disk`` writes: a folder of Arrow files for each split

Images are PNG or JPEG files in a column ``image`` or ``img``. Labels are in ``label``, ``labels``
or ``fine_label``. Files may come from untrusted sources: they are read as data, and their sizes
are checked.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codingbench.datasets.arrays import SPLIT_WORDS, ArrayData, array_data
from codingbench.datasets.class_names import Names, class_names, mapped, mapping
from codingbench.datasets.description import DEFAULT_SIZE
from codingbench.datasets.photos import form_of, look_at, read_image
from codingbench.datasets.regular import check_size
from codingbench.errors import DatasetError, one_line

PARQUET: Final = "parquet:"
SAVED: Final = "hf:"

MOST_DECODED_BYTES: Final = 2**32
"""Largest size of all decoded images, which are held in memory."""

_IMAGES: Final = ("image", "img")
_LABELS: Final = ("fine_label", "label", "labels")
_FREE_BYTES: Final = 2**26  # expanded size of a column that is always allowed
_MOST_TEXT: Final = 2**24  # of a JSON file
_WORD: Final = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_WORDS)})(?![a-z])")


@dataclass(frozen=True, eq=False)
class _Piece:
    """The rows of a file: image files, labels, and the names of the classes if they are stated."""

    path: Path
    images: list[bytes]
    labels: np.ndarray
    names: Names | None


def shard_files(folder: Path) -> dict[str, list[Path]]:
    """Return the Parquet shards of each split, by the words in their paths below the folder.

    Shards without such a word are training images.

    Raises:
        DatasetError: there are none, or they lie in several folders per split.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        words = _WORD.findall(path.relative_to(folder).as_posix().lower())
        found.setdefault(SPLIT_WORDS[words[-1]] if words else "train", []).append(path)
    if not found:
        raise DatasetError(f"{folder} holds no file *.parquet")
    for split, paths in found.items():
        if len(folders := sorted({str(path.parent) for path in paths})) > 1:
            raise DatasetError(f"{folder}: {split} shards in {' and '.join(folders[:2])}: name one")
        _check_complete(paths)
    return found


def _check_complete(paths: list[Path]) -> None:
    """Refuse shards ``...-00000-of-00002.parquet`` of which one is missing."""
    totals = {found[1] for path in paths if (found := re.search(r"-of-(\d{5})\D", path.name))}
    if totals and (len(totals) > 1 or int(min(totals)) != len(paths)):
        stated = " and ".join(sorted(totals))
        raise DatasetError(
            f"{paths[0].parent}: {len(paths)} shards, but their names state {stated}"
        )


def saved_files(folder: Path) -> dict[str, list[Path]]:
    """Return the Arrow files of each split of what ``save_to_disk`` wrote.

    Raises:
        DatasetError: the folder does not hold such files.
    """
    listed = folder / "dataset_dict.json"
    splits = [str(name) for name in _json(listed).get("splits", [])] if listed.is_file() else [""]
    found: dict[str, list[Path]] = {}
    for name in splits:
        words = _WORD.findall(name.lower())
        split = SPLIT_WORDS[words[-1]] if words else name or "train"
        if name in ("..", ".") or "/" in name or "\\" in name or split in found:
            raise DatasetError(f"{listed} names the split {name!r} that cannot be used")
        found[split] = _listed(folder / name)
    return found


def _listed(folder: Path) -> list[Path]:
    """Return the Arrow files that the ``state.json`` of a split names."""
    files = [entry.get("filename") for entry in _json(folder / "state.json").get("_data_files", [])]
    for name in files:
        if not isinstance(name, str) or Path(name).name != name:
            raise DatasetError(
                f"{folder / 'state.json'} names a file {name!r} outside of its folder"
            )
    return [folder / name for name in files]


def _json(path: Path) -> dict[str, Any]:
    check_size(path, _MOST_TEXT)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is broken: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{path} is broken: expected an object")
    return found


def read_tables(files: dict[str, list[Path]], folder: Path, is_parquet: bool) -> ArrayData:
    """Read and decode the images of all splits that are used.

    Raises:
        DatasetError: a file is damaged, lacks a column, or the images need too much memory.
    """
    read = _parquet_pieces if is_parquet else _arrow_pieces
    pieces = {split: [p for path in paths for p in read(path)] for split, paths in files.items()}
    notes: list[str] = []
    if pieces.get("test") and all(_has_no_labels(piece) for piece in pieces["test"]):
        notes.append("its test has no labels (-1)")
        del pieces["test"]
    used = ["train", "test" if "test" in pieces else "val"]
    others = [split for split in pieces if split not in used]
    names = _stated(pieces.get("train", []))
    decode = _decoder([piece for split in used for piece in pieces.get(split, [])], folder, notes)
    given: dict[str, Any] = {}
    for split in (split for split in used if pieces.get(split)):
        given[f"{split}_images"] = decode(pieces[split])
        given[f"{split}_labels"] = np.concatenate([_labels(p, names) for p in pieces[split]])
    notes += [f"its split {split} is not used" for split in others]
    data = array_data(given, str(folder))
    return ArrayData(data.train, data.test, data.num_classes, (*data.notes, *notes))


def _ints(piece: _Piece) -> bool:
    return piece.labels.dtype.kind in "iu" and len(piece.labels) > 0


def _has_no_labels(piece: _Piece) -> bool:
    return _ints(piece) and bool((piece.labels < 0).all())


def _stated(pieces: list[_Piece]) -> Names | None:
    return next((piece.names for piece in pieces if piece.names), None)


def _labels(piece: _Piece, names: Names | None) -> np.ndarray:
    """Return the labels with the numbers of the first training file."""
    if not _ints(piece):
        return piece.labels
    if piece.labels.min() < 0:
        raise DatasetError(f"{piece.path}: label {piece.labels.min()}, expected 0 or more")
    if names is None:
        return piece.labels
    if piece.labels.max() >= len(names):
        raise DatasetError(
            f"{piece.path}: label {piece.labels.max()}, but it names {len(names)} classes"
        )
    return mapped(piece.labels.astype(np.int64), mapping(piece.path, piece.names, names))


def _decoder(
    pieces: list[_Piece], folder: Path, notes: list[str]
) -> Callable[[list[_Piece]], np.ndarray]:
    """Return the function that decodes images, all in the form that their headers suggest."""
    looks = {look for piece in pieces for image in piece.images if (look := look_at(image))}
    form = form_of(looks, DEFAULT_SIZE)
    size = sum(len(piece.images) for piece in pieces) * int(np.prod(form.shape))
    if size > MOST_DECODED_BYTES:
        raise DatasetError(
            f"{folder}: its images would need {size:,} bytes of memory, expected at most"
            f" {MOST_DECODED_BYTES:,}; folder: streams larger data sets"
        )
    if not form.is_native:
        notes.append(f"images of several sizes, or of more pixels, are scaled to {DEFAULT_SIZE}")

    def decode(chosen: list[_Piece]) -> np.ndarray:
        pixels = np.empty((sum(len(p.images) for p in chosen), *form.shape), np.uint8)
        named = ((p.path, row, image) for p in chosen for row, image in enumerate(p.images))
        for place, (path, row, image) in enumerate(named):
            pixels[place] = read_image(image, f"{path}, image in row {row}", form)
        return pixels

    return decode


# --- files --------------------------------------------------------------------------------------


def _parquet_pieces(path: Path) -> Iterator[_Piece]:
    check_size(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as shard:
            image, label = _columns(shard.schema_arrow)
            bytes_name = _bytes_name(shard.schema_arrow, image)
            for index in range(shard.num_row_groups):
                _check_expanded(path, shard.metadata.row_group(index))
        options = {"read_dictionary": [bytes_name], "page_checksum_verification": True}
        with pq.ParquetFile(path, **options) as shard:
            for index in range(shard.num_row_groups):
                table = shard.read_row_group(index, columns=[bytes_name, label])
                yield _piece(path, table, image, label)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is broken: {one_line(error)}") from error


def _check_expanded(path: Path, group: Any) -> None:
    """Refuse a row group that expands far beyond its file, or states more rows than it can hold."""
    most = _FREE_BYTES + 20 * path.stat().st_size
    expanded = sum(
        max(0, group.column(index).total_uncompressed_size) for index in range(group.num_columns)
    )
    if expanded > most or not 0 <= group.num_rows <= most:
        raise ValueError(f"a row group expands to {expanded:,} bytes, expected at most {most:,}")


def _arrow_pieces(path: Path) -> Iterator[_Piece]:
    check_size(path)
    try:
        _refuse_compressed(path)
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            image, label = _columns(stream.schema)
            _bytes_name(stream.schema, image)
            for batch in stream:
                batch.validate(full=True)
                yield _piece(path, pa.Table.from_batches([batch]), image, label)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is broken: {one_line(error)}") from error


def _refuse_compressed(path: Path) -> None:
    """Refuse compressed or dictionary-encoded batches, which ``save_to_disk`` does not write.

    Arrow would expand them, to whatever size they state, before they can be checked.
    """
    with pa.memory_map(str(path)) as source:
        for message in pa.ipc.MessageReader.open_stream(source):
            if message.type == "schema":
                continue
            if message.type != "record batch" or _is_compressed(message.metadata.to_pybytes()):
                raise ValueError(
                    "it is compressed or has dictionaries, as save_to_disk never writes"
                )


def _is_compressed(metadata: bytes) -> bool:
    """Return whether the flatbuffer of a record batch sets its field ``compression``.

    Layout: https://github.com/apache/arrow/blob/main/format/Message.fbs
    """

    def field(table: int, number: int) -> int:
        entries = table - int(struct.unpack_from("<i", metadata, table)[0])
        (size,) = struct.unpack_from("<H", metadata, entries)
        place = 4 + 2 * number
        offset = struct.unpack_from("<H", metadata, entries + place)[0] if place < size else 0
        return table + int(offset) if offset else 0

    try:
        header = field(int(struct.unpack_from("<I", metadata, 0)[0]), 2)
        return bool(field(header + int(struct.unpack_from("<I", metadata, header)[0]), 3))
    except struct.error as error:
        raise ValueError("a batch is damaged") from error


def _piece(path: Path, table: pa.Table, image: str, label: str) -> _Piece:
    """Take the images and labels out of a table, which must not repeat images to fill memory."""
    column = table.column(image).combine_chunks()
    contents = column.field("bytes") if pa.types.is_struct(column.type) else column
    is_repeated = pa.types.is_dictionary(contents.type)
    lengths = pc.binary_length(contents.dictionary if is_repeated else contents)
    lengths = lengths.take(contents.indices) if is_repeated else lengths
    most = _FREE_BYTES + 20 * path.stat().st_size
    if (expanded := pc.sum(lengths).as_py() or 0) > most:
        raise ValueError(f"its images expand to {expanded:,} bytes, expected at most {most:,}")
    if contents.null_count:
        raise ValueError(f"{contents.null_count} rows have no image bytes, perhaps only a path")
    if table.column(label).null_count:
        raise ValueError(f"column {label!r} holds {table.column(label).null_count} empty values")
    labels = np.array(table.column(label).to_pylist())
    return _Piece(path, contents.to_pylist(), labels, class_names(table.schema, label))


def _columns(schema: pa.Schema) -> tuple[str, str]:
    """Return the names of the image and label columns."""
    chosen = []
    for wanted in (_IMAGES, _LABELS):
        name = next((name for name in wanted if name in schema.names), None)
        if name is None:
            has = ", ".join(schema.names) or "none"
            raise ValueError(f"it has no column {' or '.join(wanted)}, but {has}")
        chosen.append(name)
    kind = schema.field(chosen[1]).type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        raise ValueError(f"column {chosen[1]!r} is {kind}, expected whole numbers or names")
    return chosen[0], chosen[1]


def _bytes_name(schema: pa.Schema, image: str) -> str:
    """Return the path of the column with the image files."""
    kind = schema.field(image).type
    if kind in (pa.binary(), pa.large_binary()):
        return image
    index = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    if index < 0 or kind.field(index).type not in (pa.binary(), pa.large_binary()):
        raise ValueError(f"column {image!r} is {kind}, expected struct{{bytes, path}}")
    return f"{image}.bytes"
