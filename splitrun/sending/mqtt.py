"""Streams over MQTT: a device publishes them and hears the answers; a receiver does the reverse.

::

    PREFIX/DEVICE/streams/IMAGE-ID    a stream, from the device
    PREFIX/DEVICE/answers/IMAGE-ID    JSON: the answer, or {"error": …}

The prefix is the path of the address, ``splitrun`` by default. All is sent with quality of service
1: at least once.
"""

import contextlib
import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult

from ..errors import DependencyError, LinkError
from ..text import visible
from .carriers import CarrierSettings, Delivery, LinkDownError, RefusedError, tls_context
from .items import Item

_PREFIX = "splitrun"
_CONNECT_S = 10.0
_LOOK_EVERY_S = 0.25


class _Client:
    """A connection to a broker, kept by a thread of paho's."""

    def __init__(
        self, address: SplitResult, name: str, password: str, certificates: str | None
    ) -> None:
        try:
            import paho.mqtt.client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise DependencyError(
                "MQTT needs the package paho-mqtt, which is not installed.",
                next_step='pip install "splitrun[mqtt]"',
            ) from error
        self.url = f"{address.scheme}://{address.hostname}"
        self.prefix = address.path.strip("/") or _PREFIX
        self._secure = address.scheme == "mqtts"
        self._host = address.hostname or ""
        self._port = address.port or (8883 if self._secure else 1883)
        made = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=name, clean_session=False, manual_ack=True
        )
        if self._secure:
            made.tls_set_context(tls_context(certificates))
        if address.username:
            made.username_pw_set(address.username, password or None)
        made.on_connect, made.on_subscribe = self._connected, self._subscribed
        made.on_message = self._message
        made.on_disconnect = self._disconnected
        self.paho = made
        self._topic = ""
        self._taken: Callable[[str, bytes], bool] = lambda _topic, _content: True
        self._ready, self._reason = threading.Event(), ""
        self._started = False

    def start(self, topic: str, taken: Callable[[str, bytes], bool]) -> None:
        """Connect, subscribe, and hand each message on; one that is not taken comes again later.

        Raises:
            LinkDownError: The broker cannot be reached.
            LinkError: It refuses the user.
        """
        self._topic, self._taken, self._reason = topic, taken, ""
        if not self._started:
            try:
                self.paho.connect(self._host, self._port, keepalive=30)
            except (OSError, ValueError) as error:
                reason = str(getattr(error, "strerror", None) or error).lower()
                raise self._down(reason) from error
            self.paho.loop_start()
            self._started = True
        if not self._ready.wait(_CONNECT_S):
            reason, self._reason = self._reason, ""
            if "authori" in reason.lower() or "password" in reason.lower():
                self.close()
                raise LinkError(
                    f"The broker {self.url} refuses this user: {reason}.",
                    next_step="As: mqtt://USER@BROKER, with the password in --token-file",
                )
            raise self._down(reason.lower() or f"no answer within {_CONNECT_S:g} s")

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    def publish(self, topic: str, content: bytes) -> Any:
        return self.paho.publish(topic, content, qos=1)

    def close(self) -> None:
        if self._started:
            self.paho.disconnect()
            self.paho.loop_stop()
            self._started = False
            self._ready.clear()

    def _down(self, reason: str) -> LinkDownError:
        return LinkDownError(f"The broker {self.url} cannot be reached: {reason.rstrip('.')}.")

    def _connected(self, client: Any, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        if code.is_failure:
            self._reason = str(code)
        else:
            client.subscribe(self._topic, qos=1)

    def _subscribed(self, *_words: Any) -> None:
        self._ready.set()

    def _disconnected(self, *_words: Any) -> None:
        self._ready.clear()

    def _message(self, client: Any, _data: Any, message: Any) -> None:
        if self._taken(message.topic, message.payload):
            client.ack(message.mid, message.qos)


class MqttCarrier:
    """Publishes streams and waits for their answers; see :class:`.carriers.CarrierSettings`."""

    def __init__(self, settings: CarrierSettings) -> None:
        self._device = _topic_word(settings.device)
        self._client = _Client(
            settings.address, f"splitrun-{self._device}", settings.token, settings.certificates
        )
        self._pace, self._timeout_s = settings.pace, settings.timeout_s
        self._answers: queue.Queue[tuple[str, bytes]] = queue.Queue()

    def deliver(self, item: Item) -> Delivery:
        """Publish a stream, and return the answer; see :class:`.carriers.Carrier`."""
        base = f"{self._client.prefix}/{self._device}"
        self._client.start(f"{base}/answers/+", self._heard)
        topic = f"{base}/streams/{item.id}"
        began = time.monotonic()
        published = self._client.publish(topic, item.stream)
        sent_bytes = len(item.stream) + len(topic) + 6  # packet type, lengths, packet id
        self._pace.keep(sent_bytes)
        air_ms = 1e3 * (time.monotonic() - began)
        ends = time.monotonic() + self._timeout_s
        while (left := ends - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                name, content = self._answers.get(timeout=min(left, _LOOK_EVERY_S))
                if name == item.id:
                    return Delivery(_answer(content), sent_bytes, air_ms)
        taken = "the broker has it" if published.is_published() else "the broker does not take it"
        raise LinkDownError(
            f"No answer within {self._timeout_s:g} s over {self._client.url}; {taken}.",
            next_step="Check that this runs: splitrun receive --from mqtt://BROKER --to …",
        )

    def close(self) -> None:
        """Leave the broker."""
        self._client.close()

    def _heard(self, topic: str, content: bytes) -> bool:
        self._answers.put((topic.rpartition("/")[2], content))
        return True


class MqttSource:
    """Takes the streams of all devices from a broker; see :class:`.receiver.Source`."""

    def __init__(self, address: SplitResult, token: str, certificates: str | None) -> None:
        prefix = address.path.strip("/") or _PREFIX
        # Of one name, so that the broker keeps what comes while nobody is here.
        self._client = _Client(
            address, f"splitrun-receive-{_topic_word(prefix)}", token, certificates
        )

    def listen(self, take: Callable[[str, str, bytes], bool], check: Callable[[], None]) -> None:
        """Take streams for ever."""

        def heard(topic: str, stream: bytes) -> bool:
            words = topic.removeprefix(f"{self._client.prefix}/").split("/")
            return len(words) != 3 or take(words[0], words[2], stream)

        try:
            pause = _LOOK_EVERY_S
            while True:
                check()
                if not self._client.is_ready:
                    try:
                        self._client.start(f"{self._client.prefix}/+/streams/+", heard)
                    except LinkDownError as error:
                        print(f"{error.message} Trying again.", file=sys.stderr, flush=True)
                        time.sleep(pause)
                        pause = min(2 * pause, 30.0)
                        continue
                pause = _LOOK_EVERY_S
                time.sleep(_LOOK_EVERY_S)
        finally:
            self._client.close()

    def answer(self, key: str, fields: dict[str, Any]) -> None:
        """Publish an answer to the device that waits for it."""
        device, _, name = key.partition("/")
        said = {kind: fields[kind] for kind in ("answer", "error") if kind in fields}
        self._client.publish(
            f"{self._client.prefix}/{device}/answers/{name}", json.dumps(said).encode()
        )


def _answer(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content)
        if "error" in said:
            error = said["error"]
            raise RefusedError(
                visible(str(error["message"]), keep=""), next_step=visible(error["next_step"])
            )
        return dict(said["answer"])
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError("The answer that came over MQTT is damaged.") from error


def _topic_word(name: str) -> str:
    """Return a name that is one level of a topic."""
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in name)
