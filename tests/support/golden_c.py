"""Golden streams of the kinds that there are in C: each as the coder in C takes it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from golden_streams import FOLDERS, GOLDEN, SENT

from splitrun.coding import CODERS, Codec, read_stream
from splitrun.coding.coder_file import KINDS, coder_file


@dataclass(frozen=True)
class GoldenC:
    """A golden stream.

    Attributes:
        codec: Codec of its model.
        tensors: What was sent: symbols; with a hyperprior, those of z and uint8 indexes too.
        level: Level of rate.
        stream: The stream.
    """

    codec: Codec
    tensors: tuple[np.ndarray, ...]
    level: int
    stream: bytes

    @property
    def tables(self) -> bytes:
        return coder_file(self.codec)


def kind_of(path: Path) -> str:
    return path.stem if path.parent.name == "context" else path.parent.name


PATHS = [
    path
    for folder in FOLDERS
    for path in sorted((GOLDEN / folder).glob("*.npz"))
    if kind_of(path) in [kind.kind for kind in KINDS]
]


def golden_c(path: Path) -> GoldenC:
    with np.load(path) as golden:
        coder = CODERS[kind_of(path)].from_parts({}, golden)
        tensors = tuple(golden[name] for name in SENT[kind_of(path)])
        beside = path.with_suffix(".sz")
        stream = beside.read_bytes() if beside.exists() else golden["stream"].tobytes()
    frame, level = read_stream(stream), 0
    shape = (1, 1) if frame.shape else coder.shape(*tensors)
    if coder.betas:
        level = frame.payload[0]
        tensors = (coder.levels.symbols(tensors[0], level),)
    if len(tensors) == 3:
        tensors = (*tensors[:2], tensors[2].astype(np.uint8))
    return GoldenC(Codec(coder, frame.stream_id, shape), tensors, level, stream)
