"""What a device that sends and a server that answers must agree on, beside the stream itself."""

import re

KEY = re.compile(r"[A-Za-z0-9._:/+=-]{1,200}")
"""``Idempotency-Key`` of a stream, by which the server knows a repeat."""

MOST_TOP = 1000
"""Most classes or objects that can be asked for."""

STREAM, PREDICTION = "STREAM", "PREDICTION"
"""Input and output of the KServe protocol: streams, and what is said of them as JSON."""
