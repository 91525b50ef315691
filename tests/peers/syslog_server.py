"""Syslog servers in a test: rsyslog where it is installed, and one of our own that is as strict as the RFCs.

    python syslog_server.py tls PORT FILE CERTIFICATE CA
    python syslog_server.py udp PORT FILE

Each writes what it took to a file, one message a line, and may be killed at any moment and started again.
"""

import os
import re
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from peers.servers import Peer

BOM = "\ufeff"
_NUMBER = re.compile(
    r'ParticipantObjectID="(\d+)" ParticipantObjectTypeCode="2" ParticipantObjectTypeCodeRole="13"'
)


class Repository(Peer):
    """A server under TLS or UDP that keeps what it gets in `file`."""

    def __init__(self, command: Sequence[str], port: int, folder: Path, transport: str) -> None:
        self.port = port
        self.file = folder / "messages"
        self._udp = transport == "udp"
        super().__init__(command, folder, {"PYTHONPATH": str(Path(__file__).parents[1])})

    @property
    def texts(self) -> list[str]:
        """The MSG parts of what it took, in order; a line that is being written is left out."""
        if not self.file.exists():
            return []
        whole = self.file.read_text(encoding="utf-8").rpartition("\n")[0]
        return [line.lstrip(f" {BOM}") for line in whole.splitlines()]

    def _answers(self) -> bool:
        if self._udp:
            return f":{self.port:04X} " in Path("/proc/net/udp").read_text()
        return super()._answers()


def numbers(server: Repository) -> list[int]:
    """The records that a server has, by their numbers, in its order."""
    return [int(found[-1]) for text in server.texts if (found := _NUMBER.findall(text))]


def none_missing(server: Repository, count: int) -> bool:
    return set(numbers(server)) == set(range(1, count + 1))


def none_twice(server: Repository) -> bool:
    return max(Counter(numbers(server)).values()) == 1


def own(port: int, folder: Path, transport: str, certificate: Path, ca: Path) -> Repository:
    command = [sys.executable, __file__, transport, str(port), str(folder / "messages")]
    return Repository([*command, str(certificate), str(ca)], port, folder, transport)


def rsyslog(
    program: str, port: int, folder: Path, transport: str, certificate: Path, ca: Path
) -> Repository | None:
    """None where its module for TLS is absent."""
    if transport == "tls" and not list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")):
        return None
    tls_input = f"""
global(
    defaultNetstreamDriverCAFile="{ca}"
    defaultNetstreamDriverCertFile="{certificate}"
    defaultNetstreamDriverKeyFile="{certificate}"
)
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid")
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="keep")
"""
    udp_input = f"""
module(load="imudp")
input(type="imudp" port="{port}" address="127.0.0.1" ruleset="keep" rcvbufSize="4m")
"""
    config = folder / "rsyslog.conf"
    config.write_text(
        f"""
global(workDirectory="{folder}" maxMessageSize="128k" parser.escapeControlCharactersOnReceive="off")
{tls_input if transport == "tls" else udp_input}
template(name="text" type="string" string="%msg%\\n")
ruleset(name="keep") {{
    action(type="omfile" file="{folder / "messages"}" template="text" asyncWriting="off" flushOnTXEnd="on")
}}
"""
    )
    command = [program, "-n", "-f", str(config), "-i", str(folder / "rsyslog.pid")]
    return Repository(command, port, folder, transport)


def _serve_tls(port: int, file: Path, certificate: Path, ca: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", port)) as listening:
        while True:
            plain, _ = listening.accept()
            threading.Thread(target=_talk, args=(context, plain, file), daemon=True).start()


def _talk(context: ssl.SSLContext, plain: socket.socket, file: Path) -> None:
    out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        with context.wrap_socket(plain, server_side=True) as connection, connection.makefile("rb") as stream:
            while length := _length(stream):
                message = stream.read(length)
                if len(message) == length:
                    os.write(out, _text(message))
    except OSError:
        pass
    finally:
        os.close(out)


def _length(stream: IO[bytes]) -> int:
    """Octet counting (RFC 5425 4.3); 0 at the end."""
    digits = b""
    while (byte := stream.read(1)) not in {b" ", b""}:
        digits += byte
    return int(digits or b"0")


def _text(message: bytes) -> bytes:
    """The last part of <PRI>VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID SD MSG (RFC 5424 6), as a line; raises
    ValueError for anything else."""
    head, _time, _host, _name, _process, _id, structured, text = message.split(b" ", 7)
    if head not in {b"<84>1", b"<85>1"} or structured != b"-":
        raise ValueError(message[:80])
    return text + b"\n"


def _serve_udp(port: int, file: Path) -> None:
    out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", port))
        while True:
            os.write(out, _text(listening.recv(65_535)))


if __name__ == "__main__":
    kind, number, name, *pems = sys.argv[1:]
    if kind == "tls":
        _serve_tls(int(number), Path(name), *map(Path, pems))
    else:
        _serve_udp(int(number), Path(name))
