"""What a pickle asks for before any of it is read, and the little that a checkpoint may ask for.

torch's weights-only unpickler is what keeps a pickle from running code. This looks at the pickle
first: with a shorter list of names, so that the message can say all of them, and with limits on
what torch would spend time and memory on.
"""

import _compat_pickle
import pickletools
import struct
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

OPERATIONS_LIMIT = 5_000_000
"""A checkpoint of a ResNet-101 with its optimizer has less than a tenth of them."""
PROTOCOL = 2
"""Of every pickle that torch writes."""

_STORAGES = (
    *("Float", "Double", "Half", "BFloat16"),
    *("Long", "Int", "Short", "Char", "Byte", "Bool"),
)
_PLAIN = frozenset(
    (
        "_codecs.encode",  # bytes in this protocol, those of numpy's scalars
        "builtins.set",
        "collections.OrderedDict",
        "collections.Counter",  # milestones of a learning rate
        "torch.Size",
        "torch.device",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
        *(f"torch.{kind}Storage" for kind in _STORAGES),
    )
)
"""Allowed names that torch's weights-only unpickler knows."""

_NUMBERS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}


class _NumberType:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _number(kind: _NumberType, data: bytes) -> float:
    """Stands for numpy's function that makes a scalar: the best value in validation is one."""
    (value,) = struct.unpack(kind.order + _NUMBERS[kind.code], data)
    return value


# numpy itself would reserve as much memory as a hostile dtype says.
_STAND_INS: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": Namespace,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "numpy.dtype": _NumberType,
    "pathlib.PosixPath": PurePosixPath,
    "pathlib.WindowsPath": PureWindowsPath,
}

ALLOWED = _PLAIN | _STAND_INS.keys()
"""Everything that a checkpoint may ask for."""

SAFE_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (made, name) for name, made in _STAND_INS.items()
]
"""For ``torch.serialization.safe_globals``."""

# Operations that push a string, that put what is on top into the memo, and that push it again.
_STRINGS = ("BINUNICODE", "SHORT_BINUNICODE", "UNICODE")
_PUTS = ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE")
_GETS = ("BINGET", "LONG_BINGET", "GET")
_ENCODE = "_codecs encode"
_COMPUTED = ""

Operation = tuple[str, Any]


def names_in(stream: BinaryIO) -> set[str]:
    """Return what a pickle asks for, without doing any of it.

    Args:
        stream: At the beginning of the pickle; left behind its end.

    Returns:
        Names with their modules, or what else a pickle can ask for, in words.

    Raises:
        ValueError: It is no pickle, is cut short, is too long, or encodes what is not a string.
    """
    names: set[str] = set()
    strings = [_COMPUTED, _COMPUTED]
    for name, argument in _literal_encodings(_operations(stream)):
        if name == "PROTO" and argument != PROTOCOL:
            # Later protocols have further ways to name things.
            names.add(f"pickle protocol {argument}")
        elif name in ("GLOBAL", "INST"):
            names.add(_today(str(argument)))
        elif name == "STACK_GLOBAL":
            names.add(".".join(strings) if _COMPUTED not in strings else "names that it computes")
        elif name.startswith("EXT"):
            names.add(f"extension {argument}")
        elif name in _STRINGS:
            strings = [strings[1], argument]
        elif name in _GETS:
            strings = [strings[1], _COMPUTED]
    return names


def _today(asked: str) -> str:
    """Return Python 3's name for what this protocol calls by Python 2's."""
    module, _, name = asked.partition(" ")
    renamed = _compat_pickle.NAME_MAPPING.get((module, name))
    module, name = renamed or (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
    return f"{module}.{name}"


def _operations(stream: BinaryIO) -> Iterator[Operation]:
    for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if count == OPERATIONS_LIMIT:
            raise ValueError(f"its pickle has more than {OPERATIONS_LIMIT:,} operations")
        yield operation.name, argument


def _literal_encodings(operations: Iterator[Operation]) -> Iterator[Operation]:
    """Pass operations on; refuse to encode anything but a string that stands in the file.

    Encoding what was encoded would let a few bytes grow without bound.
    """
    known: set[Any] = set()
    on_top = False
    for name, argument in operations:
        if name in _PUTS:
            if on_top:
                known.add(argument)
        else:
            if on_top and name not in _STRINGS:
                raise ValueError("its pickle encodes what is not a string")
            on_top = (name == "GLOBAL" and argument == _ENCODE) or (
                name in _GETS and argument in known
            )
        yield name, argument
