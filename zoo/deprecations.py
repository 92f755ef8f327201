"""Keeps other libraries' use of TorchScript from filling the terminal; shared by all of the zoo."""

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_torchscript() -> Iterator[None]:
    """Ignore torch's warnings that TorchScript is deprecated.

    timm and CompressAI script functions when they are imported; users of this package can do
    nothing about it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`?torch.jit")
        yield
