"""A pika connection on a socket of our own: pika speaks AMQP, we move the bytes.

``pika.connection.Connection`` leaves the transport to an adapter; this one is a plain blocking
socket. So pika does the handshake, channels, heartbeats, returns, cancels and close.
``amqp_stream`` writes and reads the messages of the call path on the same socket.
The only module of the programs that imports pika, which is a third of a small one: import it late.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import ssl
import sys
import time
import urllib.parse
import weakref
from collections.abc import Callable
from typing import Any, Final

from lambda_protocol.amqp_frames import Delivery, Properties, publish_pieces
from lambda_protocol.amqp_stream import AmqpStream
from lambda_protocol.environ import BrokerAddress, ConfigError
from lambda_protocol.errors import ServiceUnavailable
from lambda_protocol.pika_alone import import_pika_alone

if "pika" not in sys.modules:
    import_pika_alone()

import pika
import pika.channel
import pika.connection
import pika.exceptions
import pika.spec

logger = logging.getLogger(__name__)

#: What is used of pika beside its documented interface, all of it here: pika asks an adapter for
#: the first, and an adapter calls the others. A test looks for them by name.
PIKA_PRIVATE: Final = (
    "_adapter_connect_stream",
    "_adapter_disconnect_stream",
    "_adapter_emit_data",
    "_adapter_call_later",
    "_adapter_remove_timeout",
    "_adapter_add_callback_threadsafe",
    "_on_stream_connected",
    "_on_stream_terminated",
    "_on_data_available",
)

#: A network that lets nothing through for so long has lost the connection, seconds.
NETWORK_SILENCE_S: Final = 20
#: No queue can have this name: RabbitMQ keeps those that begin with amq. for itself.
_NO_QUEUE: Final = "amq.lambda.no-queue"

# What importers need of pika, from here: were it imported otherwise, its adapters would be too.
Channel = pika.channel.Channel
Parameters = pika.connection.Parameters
BasicProperties = pika.BasicProperties
ChannelClosed = pika.exceptions.ChannelClosed
ChannelClosedByBroker = pika.exceptions.ChannelClosedByBroker
StreamLost = pika.exceptions.StreamLostError

#: RabbitMQ closed a channel or the connection, and says why.
ClosedByBroker = (pika.exceptions.ChannelClosedByBroker, pika.exceptions.ConnectionClosedByBroker)

#: What every use of a connection can raise: the broker is away, or was lost just now.
BrokerLost = (OSError, pika.exceptions.AMQPError)


_NOT_FOUND: Final = 404


def is_missing(error: Exception) -> bool:
    """Return whether RabbitMQ closed a channel for a queue that does not exist.

    RabbitMQ answers 404 as well for a queue that exists on a node that is down. Only the text
    tells them apart: "no queue 'F' in vhost '/'" against "home node 'N' of durable queue 'F' in
    vhost '/' is down or inaccessible". Source: RabbitMQ, rabbit_misc, not_found and absent.
    """
    return (
        isinstance(error, ChannelClosedByBroker)
        and error.reply_code == _NOT_FOUND
        and error.reply_text.startswith("NOT_FOUND - no ")
    )


def broker_blocked(reason: str) -> ServiceUnavailable:
    """Return the error for a call while RabbitMQ has an alarm and reads no messages."""
    return ServiceUnavailable(f"RabbitMQ takes no messages now: {reason}.")


def connection_parameters(address: BrokerAddress, *, name: str) -> pika.connection.URLParameters:
    """Return pika's parameters for ``address``; ``name`` shows in the broker's listings.

    Understands what pika does (``connection_attempts``, ``retry_delay``, ``heartbeat`` …) and,
    for ``amqps``, RabbitMQ's own ``cacertfile``, ``certfile``, ``keyfile``, ``verify``.
    Raises ``ConfigError``. Source: RabbitMQ documentation, "URI query parameters".
    """
    parts = urllib.parse.urlsplit(address.uri)
    query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    tls = {str(key): query.pop(key) for key in _TLS_KEYS if key in query}
    uri = urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(query)))
    try:
        parameters = pika.connection.URLParameters(uri)
    except (ValueError, TypeError, AttributeError, SyntaxError) as error:  # some are evaluated
        raise ConfigError(f"{address.setting} has a wrong option: {error}") from None
    if parts.scheme == "amqps":
        assert parts.hostname is not None  # checked where the address is read
        context = _tls_context(tls, address.setting)
        parameters.ssl_options = pika.SSLOptions(context, parts.hostname)
    parameters.client_properties = {"connection_name": name}
    return parameters


class AmqpConnection(pika.connection.Connection):
    """One connection to the broker.

    One thread owns it: it opens, polls and closes. Any thread may :attr:`send` whole frames.
    """

    def __init__(
        self,
        parameters: pika.connection.Parameters,
        on_delivery: Callable[[Delivery], None],
        *,
        wake_fd: int | None = None,
        on_alarm: Callable[[str | None], None] = lambda _reason: None,
        make_stream: Callable[..., AmqpStream] = AmqpStream,
    ) -> None:
        """Connect and return when the connection is open; ``on_delivery`` gets every message.

        ``on_alarm`` hears why RabbitMQ reads nothing any more, and None when it reads. Both run in
        the owner's thread, inside :attr:`poll`; a byte in ``wake_fd`` ends a poll early. Raises
        one of ``BrokerLost`` within ``socket_timeout`` for each step.
        """
        self._on_alarm = on_alarm
        self._stream = stream = make_stream(
            on_delivery=on_delivery,
            on_frame=self._on_data_available,  # type: ignore[attr-defined]
            on_lost=self._on_lost,
            on_alarm=on_alarm,
            wake_fd=wake_fd,
        )
        # The stream's own methods, because a call uses each of them several times.
        self.poll = stream.poll  #: raises one of ``BrokerLost`` when the connection is gone
        self.has_news = stream.has_news
        self.has_ended = stream.has_ended  #: any thread
        self.stream = stream  #: for a thread that it is lent to
        self.send = stream.send  #: any thread
        self.abort = stream.abort
        self._closed_by: weakref.WeakKeyDictionary[Channel, Exception] = weakref.WeakKeyDictionary()
        super().__init__(
            parameters,
            on_open_error_callback=self._on_failure,
            on_close_callback=self._on_failure,
        )
        self.add_on_connection_blocked_callback(self._on_blocked)
        self.add_on_connection_unblocked_callback(self._on_unblocked)
        try:
            self._wait(lambda: self.is_open, self._step_timeout_s)
        except pika.exceptions.ConnectionClosedByBroker as error:
            error.add_note(f"connection.open virtual_host={parameters.virtual_host!r}")
            raise
        except BaseException:
            self.abort()
            raise

    # --- for the owner

    @property
    def frame_max(self) -> int:
        """The largest frame, bytes, that was agreed on."""
        return int(self._negotiated().frame_max or 131_072)

    @property
    def blocked_reason(self) -> str | None:
        """Why RabbitMQ reads nothing from this connection now, in its own words; None: it reads.

        RabbitMQ has an alarm: it is short of memory or disk. Messages still come. Any thread.
        """
        return self._stream.blocked_reason

    def open_channel(self) -> pika.channel.Channel:
        """Open a channel and wait until it is open."""
        opened: list[pika.channel.Channel] = []
        try:
            channel = self.channel(on_open_callback=opened.append)
        except KeyError as error:  # pika's, when it finds the peer gone as it asks
            raise pika.exceptions.StreamLostError("the connection was lost") from error
        self._wait(lambda: bool(opened) or channel.is_closed, self._step_timeout_s)
        if not opened:
            raise pika.exceptions.ChannelClosed(504, "the channel closed while it opened")
        channel.add_on_close_callback(self._closed_by.__setitem__)
        return channel

    def call(self, channel: pika.channel.Channel, method: str, **arguments: Any) -> Any:
        """Run a synchronous method of ``channel`` and return the broker's answer frame.

        Raises ``pika.exceptions.ChannelClosed``, with a note of what was asked for, when the
        broker refuses it.
        """
        answers: list[Any] = []
        getattr(channel, method)(callback=answers.append, **arguments)
        self._wait(lambda: bool(answers) or channel in self._closed_by, self._step_timeout_s)
        words = [f"{name}={value!r}" for name, value in arguments.items()]
        self._raise_if_closed(channel, " ".join([method.replace("_", ".", 1), *words]))
        return answers[0]

    def consume(
        self,
        channel: pika.channel.Channel,
        queue: str,
        *,
        auto_ack: bool = False,
        arguments: dict[str, Any] | None = None,
        limit_s: float = math.inf,
    ) -> str:
        """Start a consumer on ``queue`` and return its tag; messages go to ``on_delivery``.

        Raises ``TimeoutError`` after ``limit_s``, if that is less than any answer may take.
        """
        started: list[Any] = []
        tag = channel.basic_consume(
            queue,
            _never_called,
            auto_ack=auto_ack,
            arguments=arguments,
            callback=started.append,
        )
        limit_s = min(limit_s, self._step_timeout_s)
        self._wait(lambda: bool(started) or channel in self._closed_by, limit_s)
        self._raise_if_closed(channel, f"basic.consume queue={queue!r}")
        return tag

    def probe(self, channel: pika.channel.Channel) -> None:
        """Publish a message for no queue: if RabbitMQ has an alarm, it says so soon.

        It tells a connection of an alarm only when that publishes while there is one. ``channel``
        must not be in confirm mode: the message would be confirmed, too.
        Source: RabbitMQ documentation, "Blocked Connection Notifications".
        """
        number, frame_max = channel.channel_number, self.frame_max
        self.send(publish_pieces(number, _NO_QUEUE, Properties(), b"", frame_max=frame_max))

    def check_publishing(self, channel: pika.channel.Channel) -> None:
        """Return when RabbitMQ has taken a message for no queue, or has an alarm.

        It checks the permission to publish only then. Raises one of ``BrokerLost``.
        """
        answers: list[Any] = []
        self.probe(channel)
        channel.basic_qos(callback=answers.append)
        self._wait(
            lambda: bool(answers or self._stream.blocked_reason) or channel in self._closed_by,
            self._step_timeout_s,
        )
        self._raise_if_closed(channel, "basic.publish exchange='' (amq.default)")
        if answers:
            self._on_alarm(None)

    def shut_down(self) -> None:
        """Close the connection politely, within a second, whatever its state."""
        with contextlib.suppress(*BrokerLost):
            if self.is_open and self._stream.blocked_reason is None:
                self.close()
                self._wait(lambda: self.is_closed, 1.0)
        self.abort()

    # --- what pika asks of an adapter, and gives it; the stubs leave the second half out

    def _adapter_connect_stream(self) -> None:
        self._stream.open(_connect(self._negotiated()))
        self._on_stream_connected()  # type: ignore[attr-defined]

    def _adapter_disconnect_stream(self) -> None:
        error = self._error  # type: ignore[attr-defined]
        if isinstance(error, pika.exceptions.ConnectionClosedByBroker):
            self._stream.failure = (
                error  # pika tells only its text, where the connection never opened
            )
        self.abort()
        self._on_stream_terminated(None)  # type: ignore[attr-defined]

    def _adapter_emit_data(self, data: bytes) -> None:
        try:
            self.send(data)
        except OSError as error:
            self._on_lost(error)

    def _adapter_call_later(self, delay: float, callback: Callable[[], Any]) -> int:
        return self._stream.call_later(delay, callback)

    def _adapter_remove_timeout(self, timeout_id: object) -> None:
        self._stream.remove_timer(timeout_id)

    def _adapter_add_callback_threadsafe(self, callback: Callable[..., Any]) -> None:
        raise NotImplementedError("only the owner's thread talks to pika")

    @property
    def bytes_received(self) -> int:
        """How many bytes have come: pika's heartbeat checker looks at it."""
        return self._stream.bytes_received

    @bytes_received.setter
    def bytes_received(self, count: int) -> None:
        """Begin at ``count``, as pika does when it connects."""
        self._stream.bytes_received = count

    # --- inside

    def _negotiated(self) -> pika.connection.Parameters:
        assert self.params is not None  # the stubs allow for a connection without
        return self.params

    @property
    def _step_timeout_s(self) -> float:
        return float(self._negotiated().socket_timeout or 10.0)

    def _wait(self, is_done: Callable[[], bool], limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not is_done():
            left = deadline - time.monotonic()
            if self._stream.blocked_reason is not None:
                raise TimeoutError(f"the broker reads nothing now: {self._stream.blocked_reason}")
            if left <= 0:
                raise TimeoutError(f"the broker did not answer within {limit_s:g} s")
            self.poll(left)

    def _raise_if_closed(self, channel: pika.channel.Channel, wanted: str) -> None:
        error = self._closed_by.get(channel)
        if error is not None:
            error.add_note(wanted)
            raise error

    def _on_lost(self, error: OSError) -> None:
        self.abort()
        if not self.is_closed:
            lost = pika.exceptions.StreamLostError(str(error))
            self._on_stream_terminated(lost)  # type: ignore[attr-defined]

    def _on_blocked(self, _connection: object, frame: Any) -> None:
        self._stream.blocked_reason = str(frame.method.reason) or "alarm"

    def _on_unblocked(self, _connection: object, _frame: object) -> None:
        self._stream.blocked_reason = None

    def _on_failure(self, _connection: object, reason: Exception | str) -> None:
        if self._stream.failure is None:
            self._stream.failure = (
                reason
                if isinstance(reason, Exception)
                else pika.exceptions.AMQPConnectionError(reason)
            )


def _never_called(*_delivery: object) -> None:
    """Stand where pika wants a consumer: it never sees a delivery."""


_TLS_KEYS: Final = ("cacertfile", "certfile", "keyfile", "verify")


def _tls_context(options: dict[str, str], setting: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("cacertfile"))
        # Python 3.13 refuses private CAs without a keyUsage extension; brokers have such CAs.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", ssl.VerifyFlags(0))
        if options.get("certfile"):
            context.load_cert_chain(options["certfile"], options.get("keyfile"))
    except OSError as error:
        raise ConfigError(
            f"{setting} names a certificate file that cannot be read: {error}"
        ) from None
    if options.get("verify") == "verify_none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _connect(parameters: pika.connection.Parameters) -> socket.socket:
    """Return a connected socket, TLS and all; tries ``connection_attempts`` times."""
    attempts = parameters.connection_attempts
    for attempt in range(1, attempts + 1):
        try:
            sock = socket.create_connection(
                (parameters.host, parameters.port), parameters.socket_timeout
            )
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _notice_a_dead_network(sock)
            if parameters.ssl_options is not None:
                sock = parameters.ssl_options.context.wrap_socket(
                    sock, server_hostname=parameters.ssl_options.server_hostname
                )
            sock.settimeout(None)
            return sock
        except OSError as error:
            if attempt == attempts:
                raise
            logger.info("broker not reached", extra={"attempt": attempt, "error": error})
            time.sleep(parameters.retry_delay)
    raise AssertionError("connection_attempts is at least 1")


def _notice_a_dead_network(sock: socket.socket) -> None:
    """Let the kernel end a connection whose peer's kernel acknowledges nothing.

    A heartbeat cannot: one that is short enough takes a broker that stands still for a dead one,
    while its kernel acknowledges. Without it TCP sends again only long after the network is back.
    Source: tcp(7).
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, NETWORK_SILENCE_S // 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, NETWORK_SILENCE_S // 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, NETWORK_SILENCE_S * 1000)
