"""Lines that carry frames: UDP, and a serial line, where each frame ends with a zero (COBS)."""

import contextlib
import os
import socket
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qs

from ..errors import DependencyError, LinkError, SpecError
from .carriers import LinkDownError
from .frames import LEAST_FRAME_BYTES
from .links import Link

_UDP_FRAME_BYTES = 1400
_SERIAL_FRAME_BYTES = 222
_MOST_BYTES = 65_507


class Line(Protocol):
    """Carries frames both ways; some are lost, damaged, doubled or late.

    Attributes:
        frame_bytes: Size of the largest frame.
        overhead_bytes: Bytes that each frame has besides on the line, as far as they are known.
    """

    frame_bytes: int
    overhead_bytes: int

    def send(self, frame: bytes, to: Any = None) -> None:
        """Send a frame; on a listening line, to whom :meth:`receive` named.

        Raises:
            LinkDownError: The line is down at present.
        """
        ...

    def receive(self, timeout_s: float) -> tuple[bytes, Any] | None:
        """Wait for a frame, and return it and its sender; None when the time is over.

        Raises:
            LinkDownError: The line is down.
        """
        ...

    def close(self) -> None:
        """Close the line."""
        ...


def open_line(
    address: SplitResult, frame_bytes: int = 0, *, link: Link | None = None, listen: bool = False
) -> Line:
    """Open the line of an address such as ``udp://HOST:PORT``.

    Args:
        address: Address from :func:`.carriers.read_address`.
        frame_bytes: Size of the largest frame; 0 takes the link's, or else what is usual.
        link: Link to be as slow as.
        listen: Whether to wait for senders.

    Raises:
        LinkError: It cannot be opened.
        SpecError: Frames of that size carry no answers.
    """
    usual = _UDP_FRAME_BYTES if address.scheme == "udp" else _SERIAL_FRAME_BYTES
    frame_bytes = frame_bytes or (link.frame_bytes if link else 0) or usual
    if frame_bytes < LEAST_FRAME_BYTES:
        raise SpecError(
            f"Frames of {frame_bytes} bytes are too small; {LEAST_FRAME_BYTES} are the least.",
            next_step="Name more with --frame BYTES.",
        )
    kind = UdpLine if address.scheme == "udp" else SerialLine
    return kind(address, frame_bytes, listen=listen)


class UdpLine:
    """Frames as UDP datagrams; see :class:`Line`."""

    overhead_bytes = 28  # IPv4 and UDP

    def __init__(self, address: SplitResult, frame_bytes: int, *, listen: bool) -> None:
        self.frame_bytes = frame_bytes
        self._name = address.geturl()
        self._host, self._port = address.hostname or "", address.port or 0
        self._listen = listen
        self._socket: socket.socket | None = None
        if listen:
            self._open()

    def send(self, frame: bytes, to: Any = None) -> None:
        """Send a datagram."""
        with self._errors():
            opened = self._open()
            opened.sendto(frame, to) if to else opened.send(frame)

    def receive(self, timeout_s: float) -> tuple[bytes, Any] | None:
        """Wait for a datagram."""
        with self._errors():
            opened = self._open()
            opened.settimeout(max(timeout_s, 0.001))
            with contextlib.suppress(TimeoutError):
                return opened.recvfrom(_MOST_BYTES)
        return None

    def close(self) -> None:
        """Close the socket."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        if self._socket:
            return self._socket
        opened = None
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            opened = socket.socket(found[0], socket.SOCK_DGRAM)
            opened.bind(found[4]) if self._listen else opened.connect(found[4])
        except OSError as error:
            if opened:
                opened.close()
            reason = (error.strerror or str(error)).lower()
            kind = LinkError if self._listen else LinkDownError
            raise kind(f"{self._name} cannot be opened: {reason}.") from error
        self._socket = opened
        return opened

    @contextlib.contextmanager
    def _errors(self) -> Any:
        try:
            yield
        except OSError as error:
            if not self._listen:
                self.close()
                reason = (error.strerror or str(error)).lower()
                raise LinkDownError(f"{self._name} cannot be reached: {reason}.") from error
            # A sender that went away is no fault of the others.


class SerialLine:
    """Frames on a serial line, whose radio module hands bytes through; see :class:`Line`."""

    overhead_bytes = 2  # COBS, and the zero

    def __init__(self, address: SplitResult, frame_bytes: int, *, listen: bool) -> None:
        try:
            import serial
            from cobs import cobs
        except ImportError as error:
            raise DependencyError(
                "Serial lines need the packages pyserial and cobs, which are not installed.",
                next_step='pip install "splitrun[serial]"',
            ) from error
        self.frame_bytes = frame_bytes
        self._cobs = cobs
        self._name = address.path
        baud = parse_qs(address.query).get("baud", ["57600"])[0]
        if not baud.isdecimal() or not int(baud):
            raise SpecError(f"{baud!r} is no number of bauds.", next_step="As: ?baud=57600")
        self._kind, self._baud, self._listen = serial.Serial, int(baud), listen
        self._errors = (serial.SerialException, OSError)
        self._port: Any = None
        self._held = bytearray()
        if listen:
            self._open()

    def send(self, frame: bytes, to: Any = None) -> None:
        """Write a frame and its end."""
        port = self._open()
        try:
            port.write(self._cobs.encode(frame) + b"\0")
        except self._errors as error:
            raise self._down(error) from error

    def receive(self, timeout_s: float) -> tuple[bytes, Any] | None:
        """Read up to the next end of a frame."""
        port = self._open()
        port.timeout = max(timeout_s, 0.001)
        while True:
            frame, end, rest = bytes(self._held).partition(b"\0")
            if end:
                self._held[:] = rest
                with contextlib.suppress(self._cobs.DecodeError):
                    return self._cobs.decode(frame), self._name
                continue
            if len(self._held) > 2 * _MOST_BYTES:
                self._held.clear()  # noise
            try:
                block = port.read(max(port.in_waiting, 1))
            except self._errors as error:
                raise self._down(error) from error
            if not block:
                return None
            self._held += block

    def close(self) -> None:
        """Close the port."""
        if self._port:
            with contextlib.suppress(*self._errors):
                self._port.close()
            self._port = None

    def _open(self) -> Any:
        if self._port is None:
            try:
                self._port = self._kind(self._name, self._baud, exclusive=os.name == "posix")
            except (*self._errors, ValueError) as error:
                raise self._down(error) from error
        return self._port

    def _down(self, error: Exception) -> LinkError:
        self.close()
        reason = str(getattr(error, "strerror", None) or error).lower().rstrip(".")
        kind = LinkError if self._listen else LinkDownError
        return kind(
            f"The serial line {self._name} cannot be used: {reason}.",
            next_step="Is it plugged in, free, and may you use it (group dialout)?",
        )
