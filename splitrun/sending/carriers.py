"""What carries a stream to whoever decodes it, and how that can fail."""

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


def open_carrier(
    address: SplitResult,
    *,
    pace: Pace,
    device: str,
    model: str = "",
    token: str = "",
    timeout_s: float = 30.0,
    top: int = 5,
    tail: str = "",
    certificates: str | None = None,
    frame_bytes: int = 0,
) -> Carrier:
    """Return what carries streams to an address.

    Args:
        address: Address from :func:`read_address`.
        pace: Pace to send at.
        device: Name of this device.
        model: Name of the model at the server; empty lets the id in the stream choose.
        token: Bearer token, or for MQTT the password.
        timeout_s: Longest time to wait for an answer.
        top: Number of classes or objects to ask for.
        tail: Tail to ask for, where the model has several.
        certificates: File of certificates to trust, beside the system's.
        frame_bytes: Most bytes of a frame, for UDP and serial lines; 0 takes what suits the link.
    """
    if address.scheme in ("http", "https"):
        from .http_carrier import HttpCarrier

        return HttpCarrier(
            address,
            pace=pace,
            model=model,
            token=token,
            timeout_s=timeout_s,
            top=top,
            tail=tail,
            certificates=certificates,
        )
    if address.scheme in ("mqtt", "mqtts"):
        from .mqtt import MqttCarrier

        return MqttCarrier(
            address,
            pace=pace,
            device=device,
            token=token,
            timeout_s=timeout_s,
            certificates=certificates,
        )
    from .frame_carrier import FrameCarrier
    from .frame_lines import open_line

    line = open_line(address, frame_bytes or (pace.link.frame_bytes if pace.link else 0))
    return FrameCarrier(line, pace=pace, timeout_s=timeout_s)
