"""Items that wait to be sent, and an address where nobody listens."""

from splitrun.coding.stream import write_stream
from splitrun.sending.items import Item

STREAM = write_stream(b"payload", b"abcd")


def item(number=1, stream=STREAM):
    """Return an item whose id is its number."""
    return Item(f"{number:024x}", f"{number}.jpg", stream, 1.5, f"board/{number}", (640, 480))
