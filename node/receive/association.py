"""One association's life, on pynetdicom's upper layer. What is done with an object is `accept`'s.

Data set fragments go straight into the spool as they arrive; memory holds one PDU an association. pynetdicom 3.0.4
would hold the whole object, believe any PDU length, answer no command with an over-long UID and copy all contexts
for each connection (61 ms); those parts are replaced here, the state machine and the negotiation are its own.

Another engine gives the same face: `Engine(settings, receiver)`, `.port`, `.start()`, `.stop(seconds)`.
"""

import socket
import sys
import threading
import time
from socketserver import BaseServer
from typing import Any, cast

from pynetdicom import _config
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from node import certificates, log
from node.errors import BadEnvironment
from node.receive import admission, services
from node.receive.accept import Announced, Incoming, Receiver, Sender
from node.receive.negotiation import NO_SUCH_APPLICATION, UNCOMPRESSED
from node.settings import Settings
from node.wire import command, contexts, pdu, sockets, tls
from node.wire.message import MAX_DATA_BYTES
from storage.audit import Actor

# an idle or stalled peer is let go after this; from accept to the end of A-ASSOCIATE-RQ it has less (ARTIM)
NETWORK_SECONDS = 60.0
NEGOTIATION_SECONDS = 30.0
# how long a peer that was refused below the association may take to close
CLOSING_SECONDS = 5.0
BACKLOG = 128
# 128 contexts with 45 transfer syntaxes each are 155 kB
MAX_REQUEST_BYTES = 2**20
# more than one operation outstanding is legal only if negotiated, which we don't; some peers send ahead
MAX_WAITING = 8
# of what we send; a peer may take less
MAX_FRAGMENT_BYTES = 131_072
# Sta13 of the upper layer: aborted or rejected, the peer is to close
WAITING_FOR_CLOSE = "Sta13"
MAX_DRAINS, MAX_DRAIN_BYTES = 16, 65_536
# so many peers above the limit still hear why they are refused
SPARE_CONNECTIONS = 64


class Request:
    """A C-STORE whose data set is arriving or has arrived."""

    msg_type = "C-STORE-RQ"

    def __init__(self, context_id: int, values: dict[int, bytes], incoming: Incoming) -> None:
        self.context_id = context_id
        self.values = values
        self.incoming = incoming

    def write(self, payload: memoryview) -> None:
        self.incoming.write(payload)


class Other:
    """A message that is no C-STORE-RQ: small, so its data set is held in memory."""

    msg_type = "other"

    def __init__(self, context_id: int, values: dict[int, bytes]) -> None:
        self.context_id = context_id
        self.values = values
        self.data = bytearray()

    def write(self, payload: memoryview) -> None:
        self.data += payload
        if len(self.data) > MAX_DATA_BYTES:
            raise _Violation("a data set too long for its command")


class _Violation(Exception):
    """The peer breaks the protocol: A-P-ABORT."""


class _Messages(DIMSEServiceProvider):
    """Takes messages apart as their fragments come (PS3.8 E.2)."""

    def __init__(self, assoc: "_Association") -> None:
        super().__init__(assoc)
        self._context_id: int | None = None
        self._command = bytearray()
        self._request: Request | Other | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        try:
            if not primitive.presentation_data_value_list:
                raise _Violation("a P-DATA-TF without a fragment")
            for context_id, data in primitive.presentation_data_value_list:
                self._fragment(context_id, memoryview(data))
        except (_Violation, command.BadCommand) as e:
            log.get().info("association aborted", reason=str(e))
            self._request = None
            self.dul.event_queue.put("Evt19")

    def _fragment(self, context_id: int, data: memoryview) -> None:
        if not data or context_id not in self.assoc._accepted_cx:
            raise _Violation("a fragment without control byte or under a context that was not accepted")
        control, payload = data[0], data[1:]
        in_message = self._request is not None or bool(self._command)
        if in_message and context_id != self._context_id:
            raise _Violation("a message changes its context")
        self._context_id = context_id
        if control & 1:
            self._take_command(context_id, payload, is_last=bool(control & 2))
        elif self._request is None:
            raise _Violation("a data set without a command")
        else:
            self._request.write(payload)
            if control & 2:
                self._complete(self._request)

    def _take_command(self, context_id: int, payload: memoryview, *, is_last: bool) -> None:
        if self._request is not None:
            raise _Violation("a command inside a data set")
        self._command += payload
        if len(self._command) > command.MAX_BYTES:
            raise _Violation("a command longer than 64 KiB")
        if not is_last:
            return
        encoded = bytes(self._command)
        self._command.clear()
        values = command.parse(encoded)
        has_data = command.number(values, command.DATA_SET_TYPE) != command.NO_DATA_SET
        request: Request | Other
        if command.number(values, command.COMMAND_FIELD) == command.C_STORE_RQ:
            command.number(values, command.MESSAGE_ID)
            request = cast(_Association, self.assoc).begin(context_id, values)
        else:
            request = Other(context_id, values)
        if has_data:
            self._request = request
        else:
            self._complete(request)

    def _complete(self, request: Request | Other) -> None:
        self._request = None
        if self.msg_queue.qsize() >= MAX_WAITING:
            raise _Violation("too many operations at once")
        self.msg_queue.put((request.context_id, request))


class _Acse(ACSE):
    """Negotiation, after admission."""

    def _negotiate_as_acceptor(self) -> None:
        assoc = cast(_Association, self.assoc)
        request = self.requestor.primitive
        called, calling = str(request.called_ae_title), str(request.calling_ae_title)
        assoc.actor = Actor(calling.strip(), assoc.requestor.address_info.address, assoc.subject)
        is_dicom = str(request.application_context_name).encode() == pdu.APPLICATION_CONTEXT
        rejection = assoc.engine.admit(assoc, called, calling) if is_dicom else NO_SUCH_APPLICATION
        if rejection is None:
            super()._negotiate_as_acceptor()
            if assoc.is_established:
                assoc.accepted(called)
            return
        assoc.refused(called, rejection)
        self.send_reject(rejection.result, rejection.source, rejection.reason)
        assoc.is_rejected = True
        assoc.kill()


class _Association(Association):
    """An accepted connection."""

    def __init__(self, engine: "Engine", ae: ApplicationEntity) -> None:
        super().__init__(ae, "acceptor")
        self.engine = engine
        self.actor = Actor("", "")
        self.acse = _Acse(self)
        self.dimse = _Messages(self)
        self.busy = threading.Event()
        self._leaving = False
        self._sender: Sender | None = None
        # of the certificate that it showed, for the audit log
        self.subject = ""

    def secure(self, secured: tls.Secured) -> bool:
        """The TLS handshake; whether it came off. To be done before `start`."""
        try:
            secured.shake_hands(NEGOTIATION_SECONDS)
        except tls.NoTls as e:
            log.get().info("association aborted", reason=f"no TLS: {e}")
            if e.spoke:
                told = {"reason": f"no TLS: {e}"}
                Sender(self.engine.receiver, Actor("", self.requestor.address_info.address)).end(
                    "association.refused", told
                )
                secured.drain(CLOSING_SECONDS)
            return False
        # a peer that stalls inside a PDU must not hold its thread for ever
        secured.set_timeouts(NETWORK_SECONDS, NETWORK_SECONDS)
        self.subject = secured.subject
        return True

    def accepted(self, called: str) -> None:
        opening = {
            "called": called.strip(),
            "contexts": len(self._accepted_cx),
            "refused_contexts": len(self._rejected_cx),
        }
        self._sender = Sender(self.engine.receiver, self.actor, opening)

    def refused(self, called: str, rejection: admission.Rejection) -> None:
        detail = {
            "reason": rejection.why,
            "called": called.strip(),
            "rejection": [rejection.result, rejection.source, rejection.reason],
        }
        Sender(self.engine.receiver, self.actor).end("association.refused", detail)

    def begin(self, context_id: int, values: dict[int, bytes]) -> Request:
        assert self._sender is not None
        self.busy.set()
        context = self._accepted_cx[context_id]
        announced = Announced(
            sop_class=values.get(command.AFFECTED_CLASS, b""),
            sop_instance=values.get(command.AFFECTED_INSTANCE, b""),
            context_class=str(context.abstract_syntax),
            transfer_syntax=str(context.transfer_syntax[0]),
        )
        return Request(context_id, values, self._sender.begin(announced))

    def _serve_request(self, msg: Any, context_id: int) -> None:
        if isinstance(msg, Request):
            answer = msg.incoming.finish()
            self._send(context_id, command.store_response(msg.values, answer.status, answer.comment))
            self.busy.clear()
            return
        context = self._accepted_cx[context_id]
        message = services.Message(
            str(context.abstract_syntax), str(context.transfer_syntax[0]), msg.values, bytes(msg.data)
        )
        try:
            for outgoing in services.serve(self.engine.receiver, self.actor, message):
                self._send(context_id, outgoing.command, outgoing.data)
        except command.BadCommand as e:
            log.get().info("association aborted", reason=str(e))
            self.dul.event_queue.put("Evt19")

    def _send(self, context_id: int, encoded: bytes, data: bytes = b"") -> None:
        """A whole message, a P-DATA-TF a fragment."""
        most = self.requestor.maximum_length or MAX_FRAGMENT_BYTES
        for control, fragment in pdu.fragments(encoded, data, most):
            piece = P_DATA()
            piece.presentation_data_value_list.append((context_id, bytes((control,)) + fragment))
            self.dul.send_pdu(piece)

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        finally:
            self.engine.over(self)
            if self._sender is not None:
                lost = not self.is_released
                self._sender.end(
                    "association.aborted" if lost else "", {"busy": self.busy.is_set()} if lost else None
                )

    def leave(self) -> None:
        """A-ABORT, unless an object is arriving or its answer is still on its way."""
        if not self.is_established:
            self.cut()
            return
        if self.busy.is_set() or not self.dul.to_provider_queue.empty() or self._leaving:
            return
        self._leaving = True
        threading.Thread(target=self.abort, daemon=True).start()

    def cut(self) -> None:
        """Ends the connection whatever its threads wait for."""
        wrapped = self.dul.socket
        if wrapped is not None and wrapped.socket is not None:
            try:
                wrapped.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


class _Socket(AssociationSocket):
    """Reads with one copy, acknowledges at once, believes no length above its bound."""

    max_bytes = MAX_REQUEST_BYTES

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > self.max_bytes:
            self._gone()
            raise OSError(f"a PDU of {nr_bytes} bytes")
        data = bytearray(nr_bytes)
        at = 0
        with memoryview(data) as view:
            while at < nr_bytes:
                sockets.acknowledge_at_once(self.socket)
                try:
                    count = self.socket.recv_into(view[at:])
                except OSError:
                    self._gone()
                    raise
                if not count:
                    self._gone()
                    break
                at += count
        return data[:at] if at < nr_bytes else data

    @property
    def ready(self) -> bool:
        if self.assoc.dul.state_machine.current_state != WAITING_FOR_CLOSE:
            return bool(super().ready)
        # what still comes is dropped unread (PS3.8 9.2.3, AA-6)
        for _ in range(MAX_DRAINS):
            if not super().ready or not self.socket.recv(MAX_DRAIN_BYTES):
                break
        self._gone()
        return False

    def _shutdown_socket(self) -> None:
        """pynetdicom leaves the rest to the garbage collector where the peer has hung up first."""
        super()._shutdown_socket()
        if self.socket is not None:
            self.socket.close()

    def close(self) -> None:
        self._gone()
        super().close()

    def _gone(self) -> None:
        """Nobody will ask for an association any more: its thread need not wait for that."""
        if self.assoc.requestor.primitive is None:
            self.assoc.dul.to_user_queue.put(None)


class _Connection(RequestHandler):
    """Makes the association of a new connection: pynetdicom's own way without the copy of all contexts, and with the
    TLS handshake here, in a thread of its own, instead of in the listener's."""

    request: Any

    def handle(self) -> None:
        engine = cast(_Server, self.server).engine
        if engine.tls is not None:
            self.request = tls.accept(engine.tls, self.request)
        assoc = self._create_association()
        if engine.tls is None or assoc.secure(self.request):
            assoc.start()
            return
        engine.over(assoc)
        self.request.close()

    def _create_association(self) -> _Association:
        server = cast(_Server, self.server)
        engine = server.engine
        sockets.no_delay(self.request)
        # a peer that stalls inside a PDU must not hold its thread for ever
        self.request.settimeout(NETWORK_SECONDS)
        assoc = _Association(engine, self.ae)
        assoc._server = server
        assoc.name = f"AcceptorThread@{self.remote.address}:{self.remote.port}"
        wrapped = _Socket(assoc, client_socket=self.request)
        wrapped.max_bytes = max(MAX_REQUEST_BYTES, 2 * engine.settings.receive.max_pdu_bytes)
        assoc.set_socket(wrapped)
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        # negotiation only reads them: one list serves every association
        assoc.acceptor.supported_contexts = server.contexts
        assoc.requestor.address_info = self.remote
        engine.connected(assoc)
        return assoc


class _Server(ThreadedAssociationServer):
    request_queue_size = BACKLOG
    daemon_threads = True
    engine: "Engine"

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self.engine.has_room()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.get().error("a connection failed", kind=type(sys.exception()).__name__)


class Engine:
    """Listens and serves associations until stopped. Raises BadEnvironment if the address can't be bound,
    Misuse where a certificate can't be used."""

    def __init__(self, settings: Settings, receiver: Receiver) -> None:
        self.settings = settings
        self.receiver = receiver
        self._lock = threading.Lock()
        self._living: set[_Association] = set()
        self._admitted: set[_Association] = set()
        self.tls = tls.accepting(certificates.ours(settings.receive.tls)) if settings.receive.tls else None
        _config.LOG_HANDLER_LEVEL = "none"
        entity = ApplicationEntity(settings.node.ae_title)
        entity.maximum_pdu_size = settings.receive.max_pdu_bytes
        # admission counts and checks by itself
        entity.maximum_associations = settings.receive.max_associations + 1_000_000
        entity.network_timeout = NETWORK_SECONDS
        entity.acse_timeout = NEGOTIATION_SECONDS
        entity.implementation_class_uid = contexts.IMPLEMENTATION_CLASS
        entity.implementation_version_name = contexts.IMPLEMENTATION_VERSION
        receive = settings.receive
        try:
            self._server = entity.make_server(
                (receive.host, receive.port),
                ae_title=settings.node.ae_title,
                contexts=supported_contexts(settings),
                server_class=_Server,
                request_handler=_Connection,
            )
        except OSError as e:
            raise BadEnvironment(f"can't listen on {receive.host}:{receive.port}: {e.strerror or e}") from e
        self._server.engine = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="listener", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Takes no more connections; lets objects that are arriving end; what lasts longer is cut."""
        if self._thread.is_alive():
            BaseServer.shutdown(self._server)
        self._server.server_close()
        end = time.monotonic() + seconds
        while (living := self._connections()) and time.monotonic() < end:
            for assoc in living:
                assoc.leave()
            time.sleep(0.02)
        for assoc in self._connections():
            assoc.cut()
            # without `ident` it is not started: still shaking hands
            if assoc.ident:
                assoc.join(1)

    def has_room(self) -> bool:
        """Connections beyond `max_associations` are told so, up to a point."""
        return len(self._living) < self.settings.receive.max_associations + SPARE_CONNECTIONS

    def connected(self, assoc: _Association) -> None:
        with self._lock:
            self._living.add(assoc)

    def admit(self, assoc: _Association, called: str, calling: str) -> admission.Rejection | None:
        """Counts the association among the admitted unless it is refused."""
        with self._lock:
            others = len(self._admitted)
            rejection = admission.judge(self.settings, called, calling, assoc.actor.host, others)
            if rejection is None:
                self._admitted.add(assoc)
        return rejection

    def over(self, assoc: _Association) -> None:
        with self._lock:
            self._living.discard(assoc)
            self._admitted.discard(assoc)

    def _connections(self) -> list[_Association]:
        with self._lock:
            return list(self._living)


def supported_contexts(settings: Settings) -> list[PresentationContext]:
    """Verification, storage commitment, every storage class that is admitted with every transfer syntax of ours."""
    receive = settings.receive
    syntaxes = list(contexts.TRANSFER_SYNTAXES)
    classes = sorted(contexts.storage_classes(receive.other_storage, receive.extra_classes))
    commitment = build_context(contexts.STORAGE_COMMITMENT, list(UNCOMPRESSED))
    # a destination that reports to us is its provider, on an association of its own
    commitment.scu_role = commitment.scp_role = True
    return [
        build_context(contexts.VERIFICATION, list(UNCOMPRESSED)),
        commitment,
        *(build_context(sop_class, syntaxes) for sop_class in classes),
    ]
