"""Downloads: by https alone, each file of a known checksum and of a size that is bounded."""

import hashlib
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import wrap_file

from codingbench.errors import DatasetError, one_line

SCHEMES: Final = frozenset({"https"})
"""What an address may begin with, that of a redirection too."""

MOST_BYTES: Final = 2**29
"""The largest file that is fetched, CIFAR's archive, has 170 MB."""

_TIMEOUT_S: Final = 60
_CHUNK: Final = 2**16


def download(urls: Sequence[str], path: Path, md5: str) -> None:
    """The file of that md5 sum, from the first address that has it; progress goes to stderr.

    Raises:
        DatasetError: none has; the message is that of the first.
    """
    errors: list[DatasetError] = []
    for url in urls:
        try:
            return _from(url, path, md5)
        except DatasetError as error:
            errors.append(error)
    raise errors[0]


def is_safe(url: str) -> bool:
    """Whether nobody between here and the host can change what is fetched from there."""
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


def _from(url: str, path: Path, md5: str) -> None:
    if not is_safe(url):
        raise DatasetError(f"{url} is no https address")
    opener = urllib.request.build_opener(_SafeRedirects)
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as response, path.open("wb") as file:
            total = int(response.headers.get("Content-Length") or 0)
            if total > MOST_BYTES:
                raise DatasetError(f"{url} has {total:,} bytes, expected at most {MOST_BYTES:,}")
            console = Console(stderr=True)
            with wrap_file(response, total, description=path.name, console=console) as shown:
                left = MOST_BYTES
                while chunk := shown.read(_CHUNK):
                    if len(chunk) > left:
                        raise DatasetError(f"{url} has more than {MOST_BYTES:,} bytes")
                    left -= len(chunk)
                    digest.update(chunk)
                    file.write(chunk)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            with suppress(OSError):
                error.close()  # it is the response, with its socket open
        raise DatasetError(f"{url}: {one_line(error)}") from error
    if digest.hexdigest() != md5:
        raise DatasetError(f"{url}: the md5 sum is {digest.hexdigest()}, expected {md5}")
