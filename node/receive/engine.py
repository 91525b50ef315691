"""Our own engine: one blocking thread and one buffer an association; bytes go from the kernel into the spool.

    listener ──► Association.run:  recv_into(buffer) ─► Stream ─► Messages ─► writev, hash, walk, on the buffer itself

The buffer is borrowed while bytes come and given back after a second of silence: an idle association costs its
thread's stack alone, and no CPU. Another engine, on pynetdicom's upper layer, is `node.receive.association`; both have
the face `Engine(settings, receiver)`, `.port`, `.start()`, `.stop(seconds)`.
"""

import mmap
import select
import socket
import ssl
import threading
import time
import traceback
from contextlib import suppress
from contextvars import copy_context

from node import certificates, log
from node.errors import BadEnvironment
from node.receive import admission
from node.receive.accept import Receiver, Sender
from node.receive.messages import Messages
from node.receive.negotiation import Context, Table
from node.receive.stream import Stream, Violation
from node.settings import Settings
from node.wire import pdu, sockets, tls
from storage.audit import Actor

BUFFER_BYTES = 2**18
# an idle or stalled peer is let go after this; from accept to the end of A-ASSOCIATE-RQ it has less (ARTIM)
NETWORK_SECONDS = 60.0
NEGOTIATION_SECONDS = 30.0
# how long a peer that was told that it is over may take to close (PS3.8 9.1.5)
CLOSING_SECONDS = 5.0
# silence after which the buffer is given back
QUIET_SECONDS = 1.0
BACKLOG = 128
# so many peers above the limit still hear why they are refused
SPARE_CONNECTIONS = 64
STACK_BYTES = 2**19
# buffers that lie ready for the next who needs one
MOST_SPARE_BUFFERS = 16


class Association:
    """An accepted connection, in a thread of its own."""

    def __init__(self, engine: "Engine", connection: socket.socket, host: str) -> None:
        self._engine = engine
        self._socket = connection
        self._host = host
        # of the certificate that it showed, for the audit log
        self._subject = ""
        self._stream = Stream(self)
        self._messages: Messages | None = None
        self._sender: Sender | None = None
        self._accepted: dict[int, Context] = {}
        # nothing more is read; was it the peer's own, orderly end?
        self._over = False
        self._released = self._aborted = False
        self._leaving = False
        # monotonic: since when nothing has come; until when the request must be there
        self._heard = self._began = time.monotonic()
        # the context carries the process's name into each log line
        run = copy_context().run
        self.thread = threading.Thread(target=run, args=(self._run,), name=f"association-{host}", daemon=True)

    # --- from the stream -------------------------------------------------------------------------------------------

    def pdu(self, kind: int, body: bytes) -> bool:
        if kind == pdu.A_ABORT:
            self._aborted = self._over = True
        elif self._messages is None:
            if kind != pdu.A_ASSOCIATE_RQ:
                raise Violation("another PDU before the A-ASSOCIATE-RQ", pdu.UNEXPECTED_PDU)
            self._negotiate(body)
        elif kind == pdu.A_RELEASE_RQ:
            self._released = self._over = True
            self._end_messages()
            self._send(pdu.release_reply())
        else:
            raise Violation("a PDU that is not expected now", pdu.UNEXPECTED_PDU)
        return not self._over

    def fragment(self, context: int, control: int, payload: memoryview, ends: bool) -> None:
        if self._messages is None:
            raise Violation("data before the A-ASSOCIATE-RQ", pdu.UNEXPECTED_PDU)
        self._messages.fragment(context, control, payload, ends)

    def end_of_data(self) -> None:
        if self._messages is not None:
            self._messages.end_of_data()

    # --- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._talk()
        except Violation as e:
            log.get().info("association aborted", reason=str(e))
            self._abort(e)
        except OSError:
            log.get().debug("connection lost")
        except Exception as e:
            place = traceback.extract_tb(e.__traceback__)[-1]
            log.get().error(
                "an association failed", kind=type(e).__name__, at=f"{place.filename}:{place.lineno}"
            )
            self._abort(Violation("a fault of ours", pdu.NO_REASON))
        finally:
            self._end_messages()
            self._socket.close()
            self._engine.over(self)

    def _talk(self) -> None:
        sockets.no_delay(self._socket)
        if self._engine.tls is None:
            sockets.set_timeouts(self._socket, QUIET_SECONDS, NETWORK_SECONDS)
        else:
            self._secure(self._engine.tls)
        while not self._over and self._wait():
            buffer = self._engine.borrow()
            try:
                self._read(memoryview(buffer))
            finally:
                self._engine.give_back(buffer)
        # who has aborted waits for us to close (PS3.8 9.2, AA-3)
        if self._over and not self._aborted:
            self._wait_for_close()

    def _secure(self, context: ssl.SSLContext) -> None:
        """TLS from here on; raises Violation. `_wait` may poll below it: `_read` leaves nothing in it undecrypted."""
        self._socket = secured = tls.accept(context, self._socket)
        try:
            secured.shake_hands(NEGOTIATION_SECONDS)
        except tls.NoTls as e:
            if e.spoke:
                told = {"reason": f"no TLS: {e}"}
                Sender(self._engine.receiver, Actor("", self._host)).end("association.refused", told)
                secured.drain(CLOSING_SECONDS)
            raise Violation(f"no TLS: {e}", pdu.NO_REASON, silent=True) from e
        secured.set_timeouts(QUIET_SECONDS, NETWORK_SECONDS)
        self._subject = secured.subject

    def _wait(self) -> bool:
        """Waits, without a buffer, until something comes; False at the peer's or our own end. Raises Violation."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not self._leaving:
            patience = self._patience()
            if patience <= 0:
                raise self._too_late()
            if poll.poll(1000 * patience):
                return True
        self._leave()
        return False

    def _patience(self) -> float:
        """Seconds that are left to the peer."""
        now = time.monotonic()
        if self._messages is None:
            return self._began + NEGOTIATION_SECONDS - now
        return self._heard + NETWORK_SECONDS - now

    def _too_late(self) -> Violation:
        """Who has no association yet is hung up on (PS3.8 9.2, AA-2)."""
        return Violation("nothing has come for too long", pdu.NO_REASON, silent=self._messages is None)

    def _read(self, buffer: memoryview) -> None:
        """Reads until the association is over or quiet between two messages."""
        held = 0
        while True:
            sockets.acknowledge_at_once(self._socket)
            try:
                count = self._socket.recv_into(buffer[held:])
            except (BlockingIOError, TimeoutError):
                if not held and self.is_between:
                    return
                if self._patience() <= 0:
                    raise self._too_late() from None
                continue
            if not count:
                if self._leaving:
                    self._leave()
                self._over = True
                self._socket.shutdown(socket.SHUT_RDWR)
                return
            end = held + count
            used = self._stream.take(buffer[:end])
            if self._messages is None:
                if self._patience() <= 0:
                    raise self._too_late()
            else:
                self._messages.flush()
            if self._over:
                return
            self._heard = time.monotonic()
            held = end - used
            if held:
                buffer[:held] = bytes(buffer[used:end])
            elif self._leaving and self.is_between:
                self._leave()
                return

    @property
    def is_between(self) -> bool:
        """No PDU and no message has begun."""
        return self._stream.is_between and (self._messages is None or self._messages.is_between)

    def _negotiate(self, body: bytes) -> None:
        try:
            request = self._engine.table.read(body)
        except pdu.BadPDU as e:
            raise Violation(str(e), pdu.INVALID_PARAMETER) from e
        called, calling = (
            title.decode("ascii", "replace").strip(" \0") for title in (request.called, request.calling)
        )
        actor = Actor(calling, self._host, self._subject)
        table = self._engine.table
        rejection = table.rejection(request) or self._engine.admit(self, called, actor)
        if rejection is not None:
            detail = {
                "reason": rejection.why,
                "called": called,
                "rejection": [rejection.result, rejection.source, rejection.reason],
            }
            Sender(self._engine.receiver, actor).end("association.refused", detail)
            self._send(pdu.reject(rejection.result, rejection.source, rejection.reason))
            self._over = True
            return
        accepted, refused, answer = table.answer(request)
        opening = {"called": called, "contexts": len(accepted), "refused_contexts": refused}
        self._sender = Sender(self._engine.receiver, actor, opening)
        self._messages = Messages(
            self._engine.receiver, self._sender, accepted, request.max_length, self._send
        )
        self._send(answer)

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _end_messages(self) -> None:
        """Takes back what had begun to arrive; harmless when done twice."""
        sender, self._sender = self._sender, None
        if sender is None or self._messages is None:
            return
        if self._released:
            sender.end()
        else:
            sender.end("association.aborted", {"busy": self._messages.is_receiving})

    def _abort(self, violation: Violation) -> None:
        """A-ABORT (PS3.8 9.3.8), and the wait for the peer's close; a stranger is hung up on."""
        self._end_messages()
        if violation.silent:
            return
        try:
            # before there is an association it comes from the user, without a reason (PS3.8 9.2, AA-1 and AA-8)
            is_known = self._messages is not None
            self._send(pdu.abort(pdu.BY_PROVIDER, violation.reason) if is_known else pdu.abort(pdu.BY_USER))
            self._wait_for_close()
        except OSError:
            return

    def _wait_for_close(self) -> None:
        """What still comes is dropped unread (PS3.8 9.2, Sta13)."""
        self._end_messages()
        end = time.monotonic() + CLOSING_SECONDS
        rest = bytearray(4096)
        while time.monotonic() < end and not self._leaving:
            try:
                if not self._socket.recv_into(rest):
                    return
            except (BlockingIOError, TimeoutError):
                continue
            except OSError:
                return

    # --- from the engine -------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Ends it between two messages: at once where none is under way."""
        self._leaving = True
        if self.is_between:
            self._hang_up(socket.SHUT_RD)

    def cut(self) -> None:
        """Ends the connection whatever its thread waits for."""
        self._hang_up(socket.SHUT_RDWR)

    def _hang_up(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            return

    def _leave(self) -> None:
        """The node stops: A-ABORT by the service user."""
        self._over = True
        if self._messages is not None:
            self._send(pdu.abort(pdu.BY_USER))


class Engine:
    """Listens and serves associations until stopped. Raises BadEnvironment if the address can't be bound,
    Misuse where a certificate can't be used."""

    def __init__(self, settings: Settings, receiver: Receiver) -> None:
        self.settings = settings
        self.receiver = receiver
        self.table = Table(settings)
        self.tls = tls.accepting(certificates.ours(settings.receive.tls)) if settings.receive.tls else None
        self._lock = threading.Lock()
        self._living: set[Association] = set()
        self._admitted: set[Association] = set()
        self._buffers: list[mmap.mmap] = []
        host, port = settings.receive.host, settings.receive.port
        try:
            self._listening = sockets.listen(host, port, BACKLOG)
        except OSError as e:
            raise BadEnvironment(f"can't listen on {host}:{port}: {e.strerror or e}") from e
        self._stopped = False
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._listen,), name="listener", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def start(self) -> None:
        # the default would be 8 MiB of address space an association
        threading.stack_size(STACK_BYTES)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Takes no more connections; lets objects that are arriving end; what lasts longer is cut."""
        self._stop_listening()
        end = time.monotonic() + seconds
        while (living := self._associations()) and time.monotonic() < end:
            for association in living:
                association.leave()
            time.sleep(0.02)
        for association in self._associations():
            association.cut()
            association.thread.join(1)

    def admit(self, association: Association, called: str, actor: Actor) -> admission.Rejection | None:
        """Counts the association among the admitted unless it is refused."""
        # a host name may have to be looked up: not under the lock
        rejection = admission.judge(self.settings, called, actor.name, actor.host, 0)
        if rejection is not None:
            return rejection
        with self._lock:
            if len(self._admitted) >= self.settings.receive.max_associations:
                return admission.TOO_MANY
            self._admitted.add(association)
        return None

    def over(self, association: Association) -> None:
        with self._lock:
            self._living.discard(association)
            self._admitted.discard(association)

    def borrow(self) -> mmap.mmap:
        with self._lock:
            if self._buffers:
                return self._buffers.pop()
        # the system's own pages: those that nothing was read into cost nothing, and all go back at once
        return mmap.mmap(-1, BUFFER_BYTES)

    def give_back(self, buffer: mmap.mmap) -> None:
        """Some lie ready; the rest is memory's again."""
        with self._lock:
            if len(self._buffers) < MOST_SPARE_BUFFERS:
                self._buffers.append(buffer)

    def _listen(self) -> None:
        while True:
            try:
                connection, address = self._listening.accept()
            except OSError as e:
                if self._listening.fileno() < 0 or self._stopped:
                    return
                # out of descriptors, or the peer is gone already
                log.get().error("a connection could not be accepted", reason=e.strerror or "I/O error")
                time.sleep(0.05)
                continue
            self._serve(connection, str(address[0]))

    def _serve(self, connection: socket.socket, host: str) -> None:
        association = Association(self, connection, host)
        with self._lock:
            has_room = len(self._living) < self.settings.receive.max_associations + SPARE_CONNECTIONS
            if has_room:
                self._living.add(association)
        if not has_room:
            connection.close()
            return
        try:
            association.thread.start()
        except RuntimeError:
            log.get().error("no thread for another association")
            self.over(association)
            connection.close()

    def _stop_listening(self) -> None:
        self._stopped = True
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        if self._thread.is_alive():
            self._thread.join(1)

    def _associations(self) -> list[Association]:
        with self._lock:
            return list(self._living)
