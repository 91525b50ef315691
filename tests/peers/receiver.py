"""Receivers over HTTP and HL7 on this machine, whose every answer the test decides; and certificates for them."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hl7
from hl7.mllp import start_hl7_server

from storage.audit import About, PatientKeys
from storage.outbox import Delivery


def to_send(writer: str, uid: str) -> Delivery:
    """A delivery of what this writer made, as a lane hands it to a sender."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Delivery(
        id=1, destination="there", state="sending", reason="", attempt=1, result_id=1, writer=writer, variant="",
        sop_class="", sop_instance=uid, file="", created_at=now, next_attempt_at=now,
        about=About(PatientKeys("", "", ""), "1.2.3", "1.2.3.4"),
    )  # fmt: skip


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpReceiver:
    """What it answers next (status, headers, body), and what it was asked."""

    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")
    asked: list[Asked] = field(default_factory=list)
    silent: bool = False
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def http_receiver(tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[HttpReceiver]:
    receiver = HttpReceiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            receiver.asked.append(Asked(self.command, self.path, dict(self.headers), body))
            if receiver.silent:
                receiver.released.wait(30)
                self.close_connection = True
                return
            status, headers, content = receiver.answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(content)

        do_GET = do_OPTIONS = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Peers that hang up are part of the tests."""

    server = Server(("127.0.0.1", port), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Hl7Receiver:
    """The `hl7` library's listener: what it answers (None: nothing, it hangs up), and the messages that it got."""

    answer: Callable[[hl7.Message], bytes | None]
    got: list[hl7.Message] = field(default_factory=list)
    hangs_up: bool = False
    """After each message."""
    silent: bool = False
    connections: int = 0
    port: int = 0


def acknowledged(code: str = "AA", err: str = "", control_id: str = "") -> Callable[[hl7.Message], bytes]:
    """An acknowledgement in original mode; `err`: the first code of ERR-3."""

    def answer(message: hl7.Message) -> bytes:
        of = control_id or str(message.segment("MSH")(10))
        segments = [
            r"MSH|^~\&|RIS||HILUM||20260101||ACK^R01^ACK|1|P|2.5.1",
            f"MSA|{code}|{of}|Unmistakable^Name",
        ]
        segments += [f"ERR|||{err}^about Unmistakable^HL70357|E"] if err else []
        return "".join(f"{segment}\r" for segment in segments).encode()

    return answer


@contextmanager
def hl7_receiver(tls: ssl.SSLContext | None = None) -> Iterator[Hl7Receiver]:
    """It listens in a thread of its own."""
    receiver = Hl7Receiver(acknowledged())

    async def talk(reader: Any, writer: Any) -> None:
        receiver.connections += 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                message = await reader.readmessage()
                receiver.got.append(message)
                if receiver.silent:
                    await reader.read()
                    break
                answer = receiver.answer(message)
                if answer is None:
                    break
                writer.writeblock(answer)
                await writer.drain()
                if receiver.hangs_up:
                    break

    with _listening(talk, partial(start_hl7_server, encoding="utf-8", ssl=tls)) as receiver.port:
        yield receiver


@contextmanager
def tls_in_front_of(port: int, tls: ssl.SSLContext) -> Iterator[int]:
    """The port at which what listens at `port` is reached by TLS: what a site's proxy does."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def talk(reader: Any, writer: Any) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, inner_writer), pass_on(inner_reader, writer))

    with _listening(talk, partial(asyncio.start_server, ssl=tls)) as outer:
        yield outer


@contextmanager
def _listening(talk: Callable[..., Coroutine[Any, Any, None]], start: Callable[..., Any]) -> Iterator[int]:
    """`talk(reader, writer)` with each who connects, in a thread with an event loop of its own; the port."""
    loop = asyncio.new_event_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def talk_and_close(reader: Any, writer: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(ConnectionError, ssl.SSLError):
            try:
                await talk(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()
        tasks.discard(task)

    async def end(server: Any) -> None:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)

    server = loop.run_until_complete(start(talk_and_close, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(end(server))
        loop.close()


@dataclass(frozen=True)
class Certificates:
    """An authority of a site's own, and a server at 127.0.0.1 that it has signed."""

    ca: Path
    server: Path
    """Certificate and key in one PEM file."""

    @property
    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        return context


def make_certificates(openssl: str, folder: Path) -> Certificates:
    def call(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    call("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Authority",
         "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    call("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    (folder / "extensions").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\n"
    )
    call("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
         "-extfile", "extensions", "-out", "server.crt")  # fmt: skip
    whole = folder / "server.pem"
    whole.write_text((folder / "server.crt").read_text() + (folder / "server.key").read_text())
    return Certificates(folder / "ca.pem", whole)
