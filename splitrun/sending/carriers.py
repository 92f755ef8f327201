"""What carries a stream to whoever decodes it, and how that can fail."""

import ssl
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from ..errors import LinkError, SpecError
from .items import Item
from .links import Pace


@dataclass(frozen=True)
class Delivery:
    """What became of a stream that was delivered.

    Attributes:
        answer: Fields of the answer, as the other side gave them; empty where it gives none.
        sent_bytes: Bytes that were sent, those of the protocol included.
        air_ms: Time that sending took.
    """

    answer: dict[str, Any] = field(default_factory=dict)
    sent_bytes: int = 0
    air_ms: float = 0.0


class LinkDownError(LinkError):
    """A link that may work later, or a server that is busy; what was sent is to be sent again.

    Attributes:
        retry_after_s: Least time to wait; 0 where the server names none.
        most_attempts: Attempts after which the stream is to blame; None for no end.
    """

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        retry_after_s: float = 0.0,
        most_attempts: int | None = None,
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.retry_after_s, self.most_attempts = retry_after_s, most_attempts


class RefusedError(LinkError):
    """One stream that the server refuses; others may be answered.

    Attributes:
        foreign: Whether the server has no model of the stream's id.
    """

    def __init__(self, message: str, *, next_step: str = "", foreign: bool = False) -> None:
        super().__init__(message, next_step=next_step)
        self.foreign = foreign


class Carrier(Protocol):
    """Delivers streams, one at a time."""

    def deliver(self, item: Item) -> Delivery:
        """Send a stream and return what came of it.

        Raises:
            LinkDownError: It may succeed later.
            RefusedError: This stream will not be answered.
            LinkError: No stream will be.
        """
        ...

    def close(self) -> None:
        """End the connection, if there is one."""
        ...


_SCHEMES = ("http", "https", "udp", "serial", "mqtt", "mqtts")
_EXAMPLES = "http://192.168.0.2:8080, udp://192.168.0.2:9000, serial:///dev/ttyUSB0?baud=57600 or "
_EXAMPLES += "mqtt://192.168.0.2"


def read_address(text: str, schemes: tuple[str, ...] = _SCHEMES) -> SplitResult:
    """Take the address of another side apart.

    Raises:
        SpecError: It is none, or of another kind than the schemes say.
    """
    try:
        address = urlsplit(text)
        port = address.port
    except ValueError as error:
        raise SpecError(f"{text!r} is no address: {error}.") from error
    known = address.scheme in schemes
    whole = address.path if address.scheme == "serial" else address.hostname
    if not known or not whole or (address.scheme == "udp" and port is None):
        missing = "it needs a port" if known and whole else f"expected {', '.join(schemes)}"
        raise SpecError(f"{text!r} is no address to use: {missing}.", next_step=f"As: {_EXAMPLES}")
    return address


@dataclass(frozen=True)
class CarrierSettings:
    """What carriers are told; each takes what its kind of link has.

    Attributes:
        address: Address from :func:`read_address`.
        pace: Pace to send at.
        device: Name of this device, for MQTT.
        model: Name of the model at the server; empty lets the id in the stream choose.
        token: Bearer token, or for MQTT the password.
        timeout_s: Longest time to wait for an answer, s.
        top: Number of classes or objects to ask for.
        tail: Tail to ask for, where the model has several.
        certificates: File of certificates to trust in place of the system's, PEM.
        frame_bytes: Most bytes of a frame, for UDP and serial lines; 0 takes what suits the link.
    """

    address: SplitResult
    pace: Pace
    device: str = ""
    model: str = ""
    token: str = ""
    timeout_s: float = 30.0
    top: int = 5
    tail: str = ""
    certificates: str | None = None
    frame_bytes: int = 0


def open_carrier(settings: CarrierSettings) -> Carrier:
    """Return what carries streams to an address; most connect when the first one is sent.

    Raises:
        SpecError: A setting cannot be used.
        DependencyError: A package that this kind of link needs is not installed.
    """
    if settings.address.scheme in ("http", "https"):
        from .http_carrier import HttpCarrier

        return HttpCarrier(settings)
    if settings.address.scheme in ("mqtt", "mqtts"):
        from .mqtt import MqttCarrier

        return MqttCarrier(settings)
    from .frame_carrier import FrameCarrier
    from .frame_lines import open_line

    line = open_line(settings.address, settings.frame_bytes, link=settings.pace.link)
    return FrameCarrier(line, pace=settings.pace, timeout_s=settings.timeout_s)


def tls_context(certificates: str | None) -> ssl.SSLContext:
    """Return what checks the other side of a TLS connection.

    Args:
        certificates: File of certificates to trust in place of the system's, PEM.

    Raises:
        SpecError: The file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=certificates)
    except OSError as error:  # of which ssl's is a kind
        reason = (getattr(error, "reason", None) or error.strerror or str(error)).lower()
        raise SpecError(
            f"The certificates in {certificates} cannot be read: {reason.replace('_', ' ')}.",
            next_step="Name a file of certificates in PEM: --certificates FILE",
        ) from error
