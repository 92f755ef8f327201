"""Read and rewrite all golden streams that hold a stack, whichever engine keeps it."""

import json
from pathlib import Path

import numpy as np

from splitrun.coding import CODERS, read_stream
from splitrun.coding.ans import BACKEND

GOLDEN = Path(__file__).parents[1] / "golden"
# What image codecs wrote has no stack.
FOLDERS = sorted({path.name for path in GOLDEN.iterdir()} - {"features", "pixels"})
SENT = {
    "autoregressive": ("latent", "hyper_symbols", "params"),
    "context": ("sent_0",),
    "factorized": ("symbols",),
    "hyperprior": ("symbols", "hyper_symbols", "indexes"),
    "hyperprior-context": ("sent_0", "sent_1", "sent_2"),
    "integer-autoregressive": ("latent", "hyper_symbols"),
    "integer-hyperprior": ("latent", "hyper_symbols"),
    "variable-rate": ("latent",),
    "variable-rate-context": ("latent",),
    "quantised-relu": ("sent_0", "sent_1", "sent_2"),
}


def read_and_rewrite(path: Path) -> str:
    """Return what differs of a golden stream, or ``"same"``."""
    kind = path.stem if path.parent.name == "context" else path.parent.name
    with np.load(path) as golden:
        coder = CODERS[kind].from_parts({}, golden)
        tensors = tuple(golden[name] for name in SENT[kind])
        beside = path.with_suffix(".sz")
        stream = beside.read_bytes() if beside.exists() else golden["stream"].tobytes()
    payload = read_stream(stream).payload
    if coder.encode(*tensors) != payload:
        return "the payload differs"
    hyper = (lambda _: (tensors[-1],)) if coder.needs_hyper else None
    decoded, *_ = coder.decode(payload, *coder.shape(*tensors), hyper)
    # What is not lossless is rounded; a wrong symbol would be off by 1.
    farthest = 0 if coder.lossless else 0.5001
    expected = coder.decoded(*tensors)[0].astype(np.float64)
    if np.abs(decoded - expected).max() > farthest:
        return "the symbols differ"
    return "same"


if __name__ == "__main__":
    paths = [path for folder in FOLDERS for path in sorted((GOLDEN / folder).glob("*.npz"))]
    outcomes = {f"{path.parent.name}/{path.stem}": read_and_rewrite(path) for path in paths}
    print(json.dumps({"engine": BACKEND.NAME, "outcomes": outcomes}))
