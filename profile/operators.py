"""Count the operations of whatever runs in PyTorch, operator by operator as PyTorch dispatches it.

It sees the operators that run, not the modules or functions that call them: linear layers, einsum
and attention arrive as matrix products, recurrent layers as those of their gates.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Call = tuple[tuple[Any, ...], Any]
"""Positional arguments of an operator, and what it returned; of several tensors the first."""


class OperatorCounter(TorchDispatchMode):
    """Counts the operators that run while it is entered; see :func:`counting`.

    A multiply-accumulate (MAC) is one product that is added to a sum, so 2 FLOPs, in every
    operator: convolutions, matrix products, recurrent layers, distances. What else is 1 FLOP: the
    addition of a bias; each output element of an elementwise operator; each element that a sum, a
    minimum, a maximum, pooling or interpolation looks at. A norm is 5 per element, 2 where it
    knows mean and variance; softmax is 5. Moving, casting, comparing for order: 0.

    Operators that others registered with PyTorch's ``register_flop_formula`` count by their
    formula.

    Attributes:
        macs: Number of MACs by operator.
        flops: Number of FLOPs by operator; ``bias`` is one of its own.
        uncounted: Calls of operators without a rule, whose operations are unknown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: Counter[str] = Counter()
        self.flops: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(func.name()).partition(".")[0].removesuffix("_")
        macs = _macs_rule(func, name)
        flops = None if macs else _flops_rule(func, name)
        if not (macs or flops):
            with self:  # a composite operator is what it is made of
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        call = args, result[0] if isinstance(result, tuple | list) and result else result
        short = name.removeprefix("aten::").lstrip("_")
        if macs:
            self.macs[short] += (found := macs(args, kwargs, result))
            self.flops[short] += 2 * found
            self.flops["bias"] += _bias(name, call)
        elif flops:
            self.flops[short] += flops(*call)
        else:
            self.uncounted[name] += 1
        return result


@contextlib.contextmanager
def counting() -> Iterator[OperatorCounter]:
    """Count what runs; attention and recurrent layers run as the operators that they consist of."""
    counter, fast = OperatorCounter(), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _macs_rule(func: Any, name: str) -> Callable[[tuple, dict, Any], int] | None:
    formula = flop_registry.get(func._overloadpacket)
    if formula:
        return lambda args, kwargs, out: formula(*args, **kwargs, out_val=out) // 2
    own = _MACS.get(name)
    return (lambda args, _kwargs, out: own(args, out)) if own else None


def _flops_rule(func: Any, name: str) -> Callable[[tuple, Any], int] | None:
    if name in _FREE or name.startswith(_FREE_BEGINNINGS) or func.is_view:
        return lambda _args, _out: 0
    if rule := _FLOPS.get(name):
        return rule
    if torch.Tag.reduction in func.tags:
        return _per_input(1)
    return _per_output(1) if torch.Tag.pointwise in func.tags else None


def _size(value: object) -> int:
    return value.numel() if isinstance(value, Tensor) else 0


def _per_output(each: int) -> Callable[[tuple, Any], int]:
    return lambda _args, out: each * _size(out)


def _per_input(each: int) -> Callable[[tuple, Any], int]:
    return lambda args, _out: each * _size(args[0])


def _window(dimensions: int) -> Callable[[tuple, Any], int]:
    """Count the elements that pooling looks at; one number stands for all sides of a window."""

    def count(args: tuple, out: Any) -> int:
        window = args[1]
        sides = window if len(window) > 1 else [*window] * dimensions
        return math.prod(sides) * _size(out)

    return count


def _bias(name: str, call: Call) -> int:
    """Return the additions of a bias: one for each output element of an operator that has one."""
    args, out = call
    at = _BIAS_AT.get(name)
    return _size(out) if at is not None and args[at] is not None else 0


def _trilinear(args: tuple, _out: Any) -> int:
    """Count a bilinear layer's (…, I), (O, I, J), (…, J) → (…, O): x·W over I, then ·y over J."""
    x, weight, y = args[:3]
    rows = max(_size(x) // weight.shape[-2], _size(y) // weight.shape[-1])
    return rows * (_size(weight) + _size(weight) // weight.shape[-2])


_MACS: dict[str, Callable[[tuple, Any], int]] = {
    "aten::mv": lambda args, _: _size(args[0]),
    "aten::addmv": lambda args, _: _size(args[1]),
    "aten::dot": lambda args, _: _size(args[0]),
    "aten::vdot": lambda args, _: _size(args[0]),
    "aten::addbmm": lambda args, _: _size(args[1]) * args[2].shape[-1],
    "aten::_int_mm": lambda args, out: _size(out) * args[0].shape[-1],
    "aten::_addmm_activation": lambda args, out: _size(out) * args[1].shape[-1],
    "aten::conv_tbc": lambda args, out: _size(out) * math.prod(args[1].shape[:2]),
    "aten::_cdist_forward": lambda args, out: _size(out) * args[0].shape[-1],
    "aten::_euclidean_dist": lambda args, out: _size(out) * args[0].shape[-1],
    "aten::_pdist_forward": lambda args, out: _size(out) * args[0].shape[-1],
    "aten::_trilinear": _trilinear,
    # One layer in one direction: input (T, N, ·), weights of all gates over input and state.
    "aten::mkldnn_rnn_layer": lambda args, _: (
        math.prod(args[0].shape[:2]) * (_size(args[1]) + _size(args[2]))
    ),
    "torchvision::deform_conv2d": lambda args, out: _size(out) * math.prod(args[1].shape[1:]),
}
_BIAS_AT = {
    "aten::convolution": 2,
    "aten::addmm": 0,
    "aten::_addmm_activation": 0,
    "aten::baddbmm": 0,
    "aten::addmv": 0,
    "aten::addbmm": 0,
    "aten::conv_tbc": 2,
    "torchvision::deform_conv2d": 4,
}
_FLOPS: dict[str, Callable[[tuple, Any], int]] = {
    "aten::native_batch_norm": lambda args, out: (5 if args[5] else 2) * _size(out),
    "aten::native_layer_norm": _per_output(5),
    "aten::native_group_norm": _per_output(5),
    "aten::_softmax": _per_output(5),
    "aten::_log_softmax": _per_output(5),
    "aten::_safe_softmax": _per_output(5),
    "aten::linalg_vector_norm": _per_input(2),
    "aten::norm": _per_input(2),
    **dict.fromkeys(("aten::var", "aten::std", "aten::var_mean", "aten::std_mean"), _per_input(4)),
    **dict.fromkeys(
        ("aten::_adaptive_avg_pool2d", "aten::adaptive_max_pool2d", "aten::col2im"), _per_input(1)
    ),
    **dict.fromkeys(("aten::cumsum", "aten::cumprod", "aten::logcumsumexp"), _per_input(1)),
    "aten::hardswish": _per_output(1),
    "aten::log_sigmoid_forward": _per_output(1),
    "aten::_prelu_kernel": _per_output(1),
    "aten::rrelu_with_noise": _per_output(1),
    "aten::glu": _per_output(2),
    "aten::avg_pool2d": _window(2),
    "aten::avg_pool3d": _window(3),
    "aten::max_pool2d_with_indices": _window(2),
    "aten::max_pool3d_with_indices": _window(3),
    "aten::upsample_linear1d": _per_output(2),
    "aten::upsample_bilinear2d": _per_output(4),
    "aten::upsample_trilinear3d": _per_output(8),
    "aten::upsample_bicubic2d": _per_output(16),
    "aten::grid_sampler_2d": _per_output(4),
    "aten::grid_sampler_3d": _per_output(8),
    # 4 elements at each of n×n points of a bin; how many n, where it is not given, is not known.
    "torchvision::roi_align": lambda args, out: 4 * args[5] ** 2 * _size(out),
}
_FREE_BEGINNINGS = tuple(
    f"aten::{name}"
    for name in (
        *(
            "arange",
            "bernoulli",
            "empty",
            "eye",
            "full",
            "lift_fresh",
            "linspace",
            "new_",
            "normal",
        ),
        *(
            "ones",
            "rand",
            "uniform",
            "reflection_pad",
            "replication_pad",
            "scalar_tensor",
            "upsample_nearest",
            "zeros",
        ),
        *("_upsample_nearest", "tril_indices", "triu_indices", "unsafe_split", "split_with_sizes"),
    )
)
_FREE = frozenset(
    f"aten::{name}"
    for name in (
        *("_local_scalar_dense", "_to_copy", "_unsafe_view", "alias", "argsort", "bucketize"),
        *("cat", "channel_shuffle", "clone", "constant_pad_nd", "copy", "detach", "embedding"),
        *("expand_copy", "fill", "flip", "gather", "im2col", "index", "index_put", "index_select"),
        *("item", "masked_select", "nonzero", "one_hot", "pixel_shuffle", "pixel_unshuffle"),
        *("repeat", "repeat_interleave", "resize", "roll", "rot90", "scatter", "searchsorted"),
        *("select_scatter", "set", "slice_scatter", "sort", "stack", "topk", "tril", "triu"),
        *("unbind_copy", "unique_dim", "_unique2", "as_strided", "equal", "is_same_size"),
    )
) | {"prim::device", "torchvision::nms"}
