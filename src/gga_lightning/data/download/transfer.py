"""Transfers a file from a web server or from Google Drive, resuming where it broke off."""

import errno
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["SourceError", "Tick", "transfer"]

Tick = Callable[[int, int | None], None]  # bytes so far, bytes in all

_TRIES = 5  # of one source without getting any further
_PAUSE = 1.0  # seconds before the second try, and twice as long before each further one
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20


class SourceError(Exception):
    """A source does not serve a file. Another one may."""


class _BrokenTransferError(Exception):
    """A transfer broke off. Another try may resume there."""


def transfer(source: str, part: Path, tick: Tick) -> None:
    """Transfers a file, or the missing part of it.

    An HTTP transfer continues a part if the server says that the file has not changed, and starts
    again otherwise. For Google Drive, gdown does the transfer.

    Args:
        source: The address.
        part: The target file. A file beside it notes which version of the file it is a part of.
        tick: Called with the progress.

    Raises:
        SourceError: If the source does not serve the file, or breaks off repeatedly. The received
            part is kept.
    """
    if urlsplit(source).hostname == "drive.google.com":
        _from_drive(source, part, tick)
    else:
        _from_web(source, part, tick)


def _from_web(source: str, part: Path, tick: Tick) -> None:
    """Transfers by HTTP, resuming a part where the server allows."""
    furthest = failures = 0
    while True:
        try:
            _continue(source, part, tick)
        except _BrokenTransferError as error:
            reached = part.stat().st_size if part.exists() else 0
            failures = 1 if reached > furthest else failures + 1
            furthest = max(furthest, reached)
            if failures == _TRIES:
                raise SourceError(f"breaks off ({error}); a new run resumes from there") from None
            time.sleep(_PAUSE * 2 ** (failures - 1))
        else:
            return


def _continue(source: str, part: Path, tick: Tick) -> None:
    """Makes one request and appends what it yields."""
    mark = part.with_name(f"{part.name}.version")
    done = part.stat().st_size if part.exists() and mark.exists() else 0
    headers = {"User-Agent": "gga-data", "Accept-Encoding": "identity"}
    if done:  # if the file on the server has changed since, the server sends all of it
        headers |= {"Range": f"bytes={done}-", "If-Range": mark.read_text()}
    response = _open(urllib.request.Request(source, headers=headers), part)
    if response is None:
        return
    with response:
        if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise SourceError("serves a web page, of a quota or an error, in place of the file")
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.unlink()
            raise _BrokenTransferError("the server sent another part than asked for")
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        mark.unlink(missing_ok=True)
        with part.open("ab" if done else "wb") as file:
            version = _version(response.headers)
            if version:
                mark.write_text(version)
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                tick(done, total)
    if total is not None and done < total:
        raise _BrokenTransferError(f"at {done:,} of {total:,} bytes")


def _version(headers: http.client.HTTPMessage) -> str | None:
    """Finds what the server needs to tell whether the file has changed, if it supports this."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _open(request: urllib.request.Request, part: Path) -> http.client.HTTPResponse | None:
    """Makes a request; returns None if the part is already complete."""
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range") == f"bytes */{part.stat().st_size}":
                return None
            part.unlink()
            raise _BrokenTransferError("the part here was longer than the file") from None
        raise SourceError(f"answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(f"cannot be reached ({_reason(error)})") from None


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(_CHUNK)  # what has arrived, without waiting for more
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenTransferError(_reason(error)) from None
        if not chunk:
            return
        yield chunk


def _from_drive(source: str, part: Path, tick: Tick) -> None:
    """Transfers from Google Drive, past its warning pages."""
    try:
        import gdown
    except ModuleNotFoundError:
        raise SourceError("needs gdown: pip install 'gga-lightning[download]'") from None
    try:
        gdown.download(
            source,
            str(part),
            quiet=True,
            use_cookies=False,
            resume=True,
            progress=tick,
            timeout=_TIMEOUT,
            retries=_TRIES - 1,
        )
    except Exception as error:  # of any kind; another source may serve the file
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SourceError(_reason(error)) from error
    if not part.is_file():
        raise SourceError("serves no file")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
