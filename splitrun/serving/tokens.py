"""Bearer tokens: who may ask."""

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from ..errors import SplitzooError, TokenError


def read_tokens(path: Path | None) -> list[bytes]:
    """Return SHA-256 of the tokens in a file, one a line; of no file, none.

    Raises:
        SplitzooError: It cannot be read, or holds none.
    """
    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SplitzooError(f"Cannot read the tokens in {path}: {reason.lower()}.") from error
    tokens = [line for line in lines if line and not line.startswith("#")]
    if not tokens:
        raise SplitzooError(
            f"{path} holds no token.",
            next_step=f"Write one a line, such as that of: openssl rand -hex 16 >> {path}",
        )
    return [hashlib.sha256(token.encode()).digest() for token in tokens]


def check_token(tokens: Sequence[bytes], header: str) -> str:
    """Return the digest of a header's token; empty where none is needed.

    Args:
        tokens: SHA-256 of the tokens that are known; without one, anyone may ask.
        header: Value of ``Authorization``.

    Raises:
        TokenError: It is none that is known.
    """
    if not tokens:
        return ""
    scheme, _, token = header.partition(" ")
    digest = hashlib.sha256(token.strip().encode()).digest()
    known = [hmac.compare_digest(digest, token_digest) for token_digest in tokens]
    if scheme.lower() != "bearer" or not any(known):
        raise TokenError(
            "The token is unknown." if token else "A token is missing.",
            401,
            next_step="Send the header: Authorization: Bearer TOKEN",
        )
    return digest.hex()
