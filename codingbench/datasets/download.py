"""Downloads over https, each file with a known md5 sum and a bounded size."""

import hashlib
import sys
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from codingbench.errors import DatasetError, one_line

SCHEMES: Final = frozenset({"https"})
"""Schemes allowed in addresses, including those of redirections."""

MOST_BYTES: Final = 2**29
"""Size limit of a file. The largest one fetched, the archive of CIFAR-100, has 170 MB."""

_TIMEOUT_S: Final = 60
_CHUNK: Final = 2**16

DownloadListener = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes received so far and all its bytes, None if unknown."""


class PrintedProgress:
    """A listener that prints a line to stderr when a file begins, and then every few megabytes."""

    STEP: Final = 2**24

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, name: str, received: int, total: int | None) -> None:
        if received == 0:
            self._next = 0
        if received >= self._next:
            of_total = "" if total is None else f" of {total / 1e6:.1f}"
            print(f"downloading {name}: {received / 1e6:.1f}{of_total} MB", file=sys.stderr)
            self._next += self.STEP


def download(
    urls: Sequence[str], path: Path, md5: str, listener: DownloadListener | None = None
) -> None:
    """Download a file from the first address that has it.

    Args:
        urls: https addresses of the same file, tried in this order.
        path: where the file is written.
        md5: expected md5 sum, 32 hexadecimal digits.
        listener: receives the progress; None: lines on stderr.

    Raises:
        DatasetError: no address gave the file; the message is that of the first address.
    """
    errors: list[DatasetError] = []
    for url in urls:
        try:
            return _download_from(url, path, md5, listener or PrintedProgress())
        except DatasetError as error:
            errors.append(error)
    raise errors[0]


def is_safe(url: str) -> bool:
    """Return whether the address uses a scheme that protects the file from being altered."""
    return urlsplit(url).scheme in SCHEMES


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not is_safe(newurl):
            raise URLError(f"redirected to {newurl}, expected https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download_from(url: str, path: Path, md5: str, listener: DownloadListener) -> None:
    if not is_safe(url):
        raise DatasetError(f"cannot download {url}: expected an https address")
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as response, path.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0) or None
            if total and total > MOST_BYTES:
                raise DatasetError(f"{url} has {total:,} bytes, expected at most {MOST_BYTES:,}")
            found = _copy(response, file, url, lambda count: listener(path.name, count, total))
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            with suppress(OSError):
                error.close()  # the error is also the response, and holds an open socket
        raise DatasetError(f"{url}: {one_line(error)}") from error
    if found != md5:
        raise DatasetError(f"{url}: the md5 sum is {found}, expected {md5}")


def _copy(response: IO[bytes], file: IO[bytes], url: str, report: Callable[[int], None]) -> str:
    """Copy a response to a file and return the md5 sum of its content."""
    digest, received = hashlib.md5(usedforsecurity=False), 0
    report(0)
    while chunk := response.read(_CHUNK):
        received += len(chunk)
        if received > MOST_BYTES:
            raise DatasetError(f"{url} has more than {MOST_BYTES:,} bytes")
        digest.update(chunk)
        file.write(chunk)
        report(received)
    return digest.hexdigest()
