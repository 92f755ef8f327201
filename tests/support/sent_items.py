"""Items that wait to be sent, and an address where nobody listens."""

import socket

from splitrun.coding.stream import write_stream
from splitrun.sending.items import Item

STREAM = write_stream(b"payload", b"abcd")


def item(number=1, stream=STREAM):
    """Return an item whose id is its number."""
    return Item(f"{number:024x}", f"{number}.jpg", stream, 1.5, f"board/{number}", (640, 480))


def free_port():
    """Return a port of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
