"""A receiver that throws everything away: what the senders could do at most.

`python -m scripts.benchmarks.discard PORT`
"""

import socket
import struct
import sys
import threading


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024) as listening:
        while True:
            peer, _ = listening.accept()
            threading.Thread(target=_serve, args=(peer,), daemon=True).start()


def _serve(peer: socket.socket) -> None:
    buffer = bytearray(2**20)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = b""
    with peer:
        while header := peer.recv(6, socket.MSG_WAITALL):
            kind, length = struct.unpack(">BxL", header)
            body = memoryview(buffer)[:length]
            if peer.recv_into(body, length, socket.MSG_WAITALL) < length:
                return
            if kind == 1:
                peer.sendall(_accept(bytes(body)))
            elif kind == 5:
                peer.sendall(struct.pack(">BxLL", 6, 4, 0))
            elif kind == 4:
                # one PDV a PDU, as our sender frames them
                if body[5] & 1:
                    request = bytes(body[6:])
                elif body[5] & 2:
                    peer.sendall(_success(body[4], request))


def _accept(request: bytes) -> bytes:
    """Every context with its first transfer syntax."""
    body, at = request[:68], 68
    while at + 4 <= len(request):
        kind, length = struct.unpack_from(">BxH", request, at)
        item = request[at + 4 : at + 4 + length]
        if kind == 0x20:
            abstract_length = struct.unpack_from(">H", item, 6)[0]
            syntax_at = 8 + abstract_length
            (syntax_length,) = struct.unpack_from(">H", item, syntax_at + 2)
            answer = struct.pack(">B3x", item[0]) + item[syntax_at : syntax_at + 4 + syntax_length]
            body += struct.pack(">BxH", 0x21, len(answer)) + answer
        else:
            body += request[at : at + 4 + length]
        at += 4 + length
    return struct.pack(">BxL", 2, len(body)) + body


def _success(context: int, request: bytes) -> bytes:
    at = request.index(struct.pack("<HHL", 0, 0x0110, 2)) + 8
    command = b"".join(
        struct.pack("<HHL", 0, number, 2) + value
        for number, value in (
            (0x0100, b"\1\x80"),
            (0x0120, request[at : at + 2]),
            (0x0800, b"\1\1"),
            (0x0900, b"\0\0"),
        )
    )
    command = struct.pack("<HHLL", 0, 0, 4, len(command)) + command
    return struct.pack(">BxLLBB", 4, len(command) + 6, len(command) + 2, context, 3) + command


if __name__ == "__main__":
    main()
