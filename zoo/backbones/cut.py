"""Cuts a network after a named layer, by tracing its forward symbolically.

Only the modules that hold a named layer are traced; every other module is one step, whatever it
does inside. The tensors that the steps pass to one another tell which of them run before the layer
and which after, and whether anything else crosses the cut. The parts share the model's modules and
keep their names, so that a part's state dict holds the model's own keys. No tensor is computed, so
a model on the meta device can be cut as well.
"""

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence

from torch import fx, nn
from torch.fx.node import Argument, map_arg

from splitrun.errors import SpecError, UnknownNameError

from ..bottleneck_specs import Layout
from ..deprecations import quiet_torchscript

with quiet_torchscript():
    from timm.layers import get_notrace_functions  # pyright: ignore[reportPrivateImportUsage]

_FEW = 12
"""Number of layers that a message names at most."""
_LAYOUTS = {
    "map": ((), ()),
    "tokens": (
        (("transpose", 1, 2), ("unsqueeze", -1)),
        (("squeeze", -1), ("transpose", 1, 2)),
    ),
    "vector": ((("unsqueeze", -1), ("unsqueeze", -1)), (("flatten", 1),)),
}
"""Tensor methods that turn a layer's output into planes (N, C, h, w), and back, by layout."""

# Raised by a forward that asks a stand-in for a tensor for its values or sizes.
_UNTRACEABLE = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def head(model: nn.Module, layer: str, layout: Layout = "map") -> fx.GraphModule:
    """Return the part of a model up to a layer.

    Args:
        model: Network whose modules the part shares.
        layer: timm's path of a module, such as ``"layer1"``.
        layout: Dimensions of the layer's output: a map, tokens (N, L, C), which the part gives as
            (N, C, L, 1), or a vector (N, C), which it gives as (N, C, 1, 1).

    Returns:
        Image (N, 3, H, W) float32 to features (N, C, h, w) float32.

    Raises:
        UnknownNameError: The model has no such layer.
        SpecError: The layer does not run exactly once for each image, or the forward of a module
            that holds it cannot be traced.
    """
    steps = _Steps(model, [layer])
    ends = {layer: steps.of(layer)}
    return steps.part("Head", start=steps.image, ends=ends, single=True, layout=layout)


def tail(model: nn.Module, layer: str, layout: Layout = "map") -> fx.GraphModule:
    """Return the part of a model after a layer; the arguments are those of :func:`head`.

    Returns:
        Features (N, C, h, w) float32, those of ``head``, to the model's output.

    Raises:
        UnknownNameError: The model has no such layer.
        SpecError: It cannot be cut, as for ``head``; or later layers need more than its features,
            because a connection passes beside it.
    """
    steps = _Steps(model, [layer])
    ends = {"output": steps.output}
    return steps.part("Tail", start=steps.of(layer), ends=ends, single=True, layout=layout)


def features(model: nn.Module, layers: Sequence[str], after: str | None = None) -> fx.GraphModule:
    """Return the part of a model from one layer to several others.

    Args:
        model: Network whose modules the part shares.
        layers: timm's paths of the modules whose outputs are wanted.
        after: Layer that the part begins after; None for the image. It may be one of ``layers``:
            its features are then handed on.

    Returns:
        Features after ``after``, or the image, to a dictionary of each of ``layers`` and its
        features (N, C, h, w) float32.

    Raises:
        UnknownNameError: The model has no such layer.
        SpecError: It cannot be cut, as for ``tail``.
    """
    steps = _Steps(model, [*layers, *([] if after is None else [after])])
    start = steps.image if after is None else steps.of(after)
    return steps.part("Features", start, {layer: steps.of(layer) for layer in layers})


def cut_points(model: nn.Module, near: Iterable[str]) -> list[str]:
    """Return the layers after which a model can be cut, in the order of computation.

    Args:
        model: Network to cut.
        near: Layers that the cut should be near; only they and the modules beside and above them
            are considered.

    Raises:
        UnknownNameError: The model has no such layer.
        SpecError: The forward of a module that holds one cannot be traced.
    """
    return _Steps(model, list(near)).cut_points()


class _Tracer(fx.Tracer):
    """Traces the forward of some modules; all others are one step each."""

    def __init__(self, traced: set[str]) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self._traced = traced

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._traced


class _Steps:
    """The steps of a model's computation, where some layers are steps of their own."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        self._model = model
        self._name = model_name(model)
        modules = dict(model.named_modules())
        for layer in layers:
            if not layer or layer not in modules:
                near = [info["module"] for info in getattr(model, "feature_info", None) or ()]
                advice = "" if layer in near else _Steps(model, near)._advice()
                raise UnknownNameError(
                    f"layer of {self._name}",
                    layer,
                    difflib.get_close_matches(layer, modules),
                    next_step=advice,
                )
        traced = {""}
        for layer in layers:
            words = layer.split(".")
            traced |= {".".join(words[:count]) for count in range(1, len(words))}
        holders = sorted(traced.intersection(layers))
        if holders:
            raise SpecError(
                f"{holders[0]} of {self._name} holds another of the layers that are asked for.",
                next_step="Take layers that do not hold one another.",
            )
        self._nodes = list(_trace(model, traced, self._name).nodes)
        self.image, self.output = self._nodes[0], self._nodes[-1]
        self._position = {node: place for place, node in enumerate(self._nodes)}

    def of(self, layer: str) -> fx.Node:
        """Return the step of a layer."""
        calls = [node for node in self._nodes if node.op == "call_module" and node.target == layer]
        if len(calls) != 1:
            raise SpecError(
                f"{layer} runs {len(calls)} times as a module in {self._name}: its output is not "
                "one tensor to cut at.",
                next_step=self._advice(),
            )
        return calls[0]

    def part(
        self,
        name: str,
        start: fx.Node,
        ends: Mapping[str, fx.Node],
        *,
        single: bool = False,
        layout: Layout = "map",
    ) -> fx.GraphModule:
        """Return the steps from one to others, as a module."""
        needed = self._needed(ends.values(), start)
        if self.image in needed and start is not self.image:
            raise SpecError(
                f"{self._name} cannot be cut after {start.target}: later layers also need what was "
                "computed before it.",
                next_step=self._advice(),
            )
        if not any(start in (end, *end.all_input_nodes) for end in (*needed, *ends.values())):
            raise SpecError(f"The output of {self._name} does not depend on {start.target}.")
        self._check_side_effects(start, needed)

        graph = fx.Graph()
        features = graph.placeholder("image" if start is self.image else "features")
        to_planes, from_planes = _LAYOUTS[layout]
        if layout == "map" and channels_last(self._model):
            to_planes, from_planes = (("permute", 0, 3, 1, 2),), (("permute", 0, 2, 3, 1),)

        def changed(node: fx.Node, steps: Sequence[tuple]) -> fx.Node:
            for method, *arguments in steps:
                node = graph.call_method(method, (node, *arguments))
            return node

        copies = {start: features if start is self.image else changed(features, from_planes)}
        for node in self._nodes:
            if node in needed and node is not self.output:
                copies[node] = graph.node_copy(node, copies.__getitem__)

        def given(end: fx.Node) -> Argument:
            if end is self.output:
                return map_arg(end.args[0], copies.__getitem__)
            if end is start:
                return features
            return changed(copies[end], to_planes)

        outputs = {key: given(end) for key, end in ends.items()}
        graph.output(next(iter(outputs.values())) if single else outputs)
        return fx.GraphModule(self._model, graph, class_name=name)

    def cut_points(self) -> list[str]:
        """Return the layers whose output is the only tensor that crosses a cut after them."""
        needed = self._needed([self.output], self.image) | {self.image}
        constant = self._constant()
        found, reach = [], 0
        for place, node in enumerate(self._nodes):
            if node not in needed or node in constant:
                continue
            if node.op == "call_module" and reach <= place:
                found.append(str(node.target))
            reach = max(reach, *(self._position[user] for user in node.users if user in needed), 0)
        return found

    def _needed(self, ends: Iterable[fx.Node], start: fx.Node) -> set[fx.Node]:
        """Return the steps from the start, without it, to the ends."""
        needed: set[fx.Node] = set()
        waiting = list(ends)
        while waiting:
            node = waiting.pop()
            if node is not start and node not in needed:
                needed.add(node)
                waiting += node.all_input_nodes
        return needed

    def _constant(self) -> set[fx.Node]:
        """Return the steps that depend on no input, such as parameters."""
        constant: set[fx.Node] = set()
        for node in self._nodes:
            if node.op != "placeholder" and constant.issuperset(node.all_input_nodes):
                constant.add(node)
        return constant

    def _check_side_effects(self, start: fx.Node, needed: set[fx.Node]) -> None:
        # A part leaves out steps whose result nobody uses, and with them what they write.
        for node in self._nodes:
            if node.users or not self._writes(node):
                continue
            if any(given is start or given in needed for given in node.all_input_nodes):
                raise SpecError(
                    f"{self._name} cannot be cut: it changes features in place ({node.target}) "
                    "that a part of it passes on."
                )

    def _writes(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return getattr(self._model.get_submodule(str(node.target)), "inplace", False)
        name = getattr(node.target, "__name__", str(node.target))
        named = name.endswith("_") and not name.endswith("__")
        return node.op.startswith("call_") and (named or bool(node.kwargs.get("inplace")))

    def _advice(self) -> str:
        points = self.cut_points()
        more = ", …" if len(points) > _FEW else "."
        return f"It can be cut after {', '.join(points[:_FEW])}{more}" if points else ""


def model_name(model: nn.Module) -> str:
    """Return timm's name of a model, or the class's where timm did not make it."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return config.get("architecture") or type(model).__name__


def channels_last(model: nn.Module) -> bool:
    """Return whether a network of timm computes (N, H, W, C).

    The parts cut from it still take and give (N, C, H, W).
    """
    return getattr(model, "output_fmt", "NCHW") == "NHWC"


def _trace(model: nn.Module, traced: set[str], name: str) -> fx.Graph:
    optional = {
        key: parameter.default
        for key, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is not parameter.empty
    }
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return _Tracer(traced).trace(model, concrete_args=optional or None)
    except _UNTRACEABLE as error:
        raise SpecError(f"{name} cannot be cut: its forward cannot be traced ({error}).") from error
    finally:
        for module, training in modes.items():
            module.training = training
