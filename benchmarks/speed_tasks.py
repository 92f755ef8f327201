"""What ``speed.py`` measures: the sides, and the tasks that each of them does."""

from dataclasses import dataclass

MODEL = "splittable_resnet50-fp-beta0.08"
THREADS = 2
PEER = "sc2bench"


@dataclass(frozen=True)
class Kind:
    """A bundle to measure: one side of the comparison.

    Attributes:
        name: Name of the side.
        target: Target of the export.
        precision: Precision of the device graph.
        edge_precision: Precision of the edge graph; below fp32, only the edge is measured.
        aot: Whether the graphs are compiled ahead of time.
        open_batch: Whether the graphs take any number of images; only the edge is measured then.
    """

    name: str
    target: str
    precision: str = "fp32"
    edge_precision: str = "fp32"
    aot: bool = False
    open_batch: bool = False

    @property
    def folder(self) -> str:
        """Below the temporary folder of a run."""
        return self.name.replace(" ", "_").replace(",", "")

    @property
    def has_edge(self) -> bool:
        """Whether the edge is measured: with the device below fp32, it is that of another side."""
        return self.precision == "fp32"

    @property
    def has_device(self) -> bool:
        """Whether the device is measured."""
        return self.edge_precision == "fp32" and not self.open_batch


KINDS = (
    Kind("cpu fp32", "cpu"),
    Kind("cpu int8", "cpu", "int8"),
    Kind("openvino fp32", "openvino"),
    Kind("openvino bf16", "openvino", "bf16"),
    Kind("openvino int8", "openvino", "int8"),
    Kind("cpu, edge int8", "cpu", edge_precision="int8"),
    Kind("openvino, edge bf16", "openvino", edge_precision="bf16"),
    Kind("openvino, edge int8", "openvino", edge_precision="int8"),
    Kind("torchscript", "torchscript"),
    Kind("torch", "torch"),
    Kind("torch --aot", "torch", aot=True),
    Kind("cpu, any batch", "cpu", open_batch=True),
    Kind("openvino, any batch", "openvino", open_batch=True),
    Kind("torch, any batch", "torch", open_batch=True),
)


EDGES = ("cpu fp32", "openvino fp32", *(one.name for one in KINDS if one.edge_precision != "fp32"))
"""Sides that compare the edge's precisions."""


@dataclass(frozen=True)
class Task:
    """Something that both sides do.

    Attributes:
        name: Name of the task.
        ours: Function that runs on our side.
        theirs: Function that runs on sc2bench's.
        share: Share of the iterations that a long task gets.
    """

    name: str
    ours: str
    theirs: str
    share: float = 1.0


ENCODE = Task(
    "image → stream", "Device.encode: image float32 → framed stream", "bottleneck_layer.encode"
)
ENCODER = Task("encoder", "Device.tensors: image → symbols", "bottleneck_layer.encoder", 0.5)
ENTROPY_ENCODING = Task(
    "entropy encoding", "FactorizedCoder.encode", "entropy_bottleneck.compress", 0.5
)
IMAGE = Task(
    "JPEG file → stream",
    "bundle.preprocessing.load, Device.encode",
    "PIL, Resize, CenterCrop, ToTensor, Normalize, bottleneck_layer.encode",
)
PREPROCESSING = Task(
    "preprocessing",
    "bundle.preprocessing.load",
    "PIL, Resize, CenterCrop, ToTensor, Normalize",
    0.5,
)
DECODE = Task(
    "stream → logits",
    "Edge.decode: framed stream → logits",
    "bottleneck_layer.decode, layer2 … layer4, fc",
    0.4,
)
ENTROPY_DECODING = Task(
    "entropy decoding", "FactorizedCoder.decode", "entropy_bottleneck.decompress", 0.5
)
BATCHES = {
    size: Task(
        f"{size} stream{'s' * (size > 1)} → logits",
        "Edge.tensors of each, Edge.output of all",
        "the same as one batch",
        share,
    )
    for size, share in ((1, 0.2), (4, 0.1), (16, 0.05))
}
TASKS = (ENCODE, ENCODER, ENTROPY_ENCODING, IMAGE, PREPROCESSING, DECODE, ENTROPY_DECODING)
