"""A real web server on this machine that can be told to behave badly."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """What is served, how, and what was asked and sent."""

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = '"one"'
    ranges: bool = True
    ignores_if_range: bool = False
    cuts: list[int] = field(default_factory=list)
    """The next answers break off after so many bytes of content."""
    statuses: list[int] = field(default_factory=list)
    """The next answers are these errors."""
    kind: str = "application/gzip"
    redirect: str = ""
    stall_after: int | None = None
    """Content stops after so many bytes, the connection stays."""
    asked: list[str | None] = field(default_factory=list)
    """The Range of each request, None where there was none."""
    sent: int = 0
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(web: Web) -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, web)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        web.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def answer(request: BaseHTTPRequestHandler, web: Web) -> None:
    wanted = request.headers.get("Range")
    web.asked.append(wanted)
    request.close_connection = True
    if web.statuses or web.redirect:
        request.send_response(web.statuses.pop(0) if web.statuses else 302)
        if web.redirect:
            request.send_header("Location", web.redirect)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    content = web.files[request.path.lstrip("/")]
    start, status = 0, 200
    same = web.ignores_if_range or request.headers.get("If-Range") == web.etag
    if wanted and web.ranges and same:
        found = re.fullmatch(r"bytes=(\d+)-", wanted)
        assert found
        start, status = int(found[1]), 206
    request.send_response(status)
    request.send_header("Content-Type", web.kind)
    request.send_header("Content-Length", str(len(content) - start))
    if web.etag:
        request.send_header("ETag", web.etag)
    if status == 206:
        request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    request.end_headers()
    most = web.cuts.pop(0) if web.cuts else len(content)
    if web.stall_after is not None:
        most = web.stall_after
    body = content[start : start + most]
    request.wfile.write(body)
    request.wfile.flush()
    web.sent += len(body)
    if web.stall_after is not None:
        web.released.wait(60)
