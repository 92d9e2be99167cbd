"""A web server that serves well and badly, and small archives for it."""

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from gga_lightning.data.benchmarks.benchmark import Archive

PAGE = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>"


@dataclass
class Route:
    """How a path answers. ``pieces``: bytes sent of each answer before the connection breaks."""

    content: bytes = b""
    status: int = 200
    kind: str = "application/octet-stream"
    ranges: bool = True
    version: str | None = '"1"'
    pieces: int | None = None
    stalls: bool = False
    length: bool = True
    asked: list = field(default_factory=list)


class Server:
    """Serves routes on 127.0.0.1 while entered."""

    def __init__(self):
        self.routes = {}
        self.released = threading.Event()
        routes, released = self.routes, self.released

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self, routes.get(self.path, Route(b"nothing here", 404)), released)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, path, route):
        self.routes[f"/{path}"] = route
        return self.url(path)

    def url(self, path):
        return f"http://127.0.0.1:{self._server.server_port}/{path}"

    def asked(self, path):
        return self.routes[f"/{path}"].asked


def answer(request, route, released):
    span = request.headers.get("Range")
    route.asked.append(span)
    start = 0
    unchanged = request.headers.get("If-Range") in (None, route.version)
    if span and route.ranges and unchanged:
        start = int(span.removeprefix("bytes=").removesuffix("-"))
    size = len(route.content)
    if start >= size > 0:
        request.send_response(416)
        request.send_header("Content-Range", f"bytes */{size}")
        request.end_headers()
        return
    request.send_response(206 if start else route.status)
    request.send_header("Content-Type", route.kind)
    if route.length:
        request.send_header("Content-Length", str(size - start))
    if route.version:
        request.send_header("ETag", route.version)
    if start:
        request.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
    request.end_headers()
    request.wfile.write(route.content[start:][: route.pieces])
    if route.stalls:
        released.wait(60)


def image(seed=0, size=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def image_tree(top, domains, classes, number=2):
    """Path to content: as many images of each class in each domain."""
    return {
        f"{top}{domain}/{label}/{index}.jpg": image(seed=17 * place + index)
        for place, domain in enumerate(domains)
        for label in classes
        for index in range(number)
    }


def make_zip(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def make_tar(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def make_idx(array):
    """The format of MNIST's files, compressed."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)  # the same file at any time


def troubled(server, name, content, **facts):
    """An archive of which all sources but the last are bad, each in its own way.

    The last breaks off again and again, so that it has to be resumed.
    """
    wrong = content[:-1] + bytes([content[-1] ^ 1])
    sources = (
        server.url(f"{name}.gone"),
        server.add(f"{name}.page", Route(PAGE, kind="text/html; charset=utf-8")),
        server.add(f"{name}.disguised", Route(PAGE)),
        server.add(f"{name}.wrong", Route(wrong)),
        server.add(f"{name}.broken", Route(content, ranges=False, pieces=len(content) // 2)),
        server.add(f"{name}.good", Route(content, pieces=len(content) // 3 + 1)),
    )
    md5 = hashlib.md5(content).hexdigest()
    return Archive(name, sources, **{"size": len(content), "md5": md5, **facts})


def plain(server, name, content, **facts):
    """An archive with one good source."""
    return Archive(name, (server.add(name, Route(content)),), **facts)
