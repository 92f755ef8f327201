"""Documents on disk: JSON files held to a pydantic model."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from splitrun.errors import SplitzooError
from splitrun.text import check_texts

M = TypeVar("M", bound=BaseModel)


def read_document(
    model: type[M],
    path: Path,
    *,
    what: str,
    version_field: str,
    supported: int,
    limit_bytes: int,
    error: type[SplitzooError],
    next_step: str = "",
) -> M:
    """Read a document and hold it to its model, version and largest size in bytes.

    Args:
        what: Name of the document, for messages.
        version_field: Field that holds the document's version.
        supported: Version that is read; no other is.
        error: Error to raise for whatever is wrong; it takes a message and ``next_step``.
        next_step: What to do about a missing or damaged document.
    """
    try:
        if path.stat().st_size > limit_bytes:
            raise error(f"{path} is larger than {limit_bytes >> 20} MiB.", next_step=next_step)
        text = path.read_text(encoding="utf-8")
        content = TypeAdapter(dict[str, Any]).validate_json(text)
        check_texts(content)
        version = content.get(version_field)
        if isinstance(version, int) and version != supported:
            newer = version > supported
            raise error(
                f"{path} is no {what} that this splitzoo reads: it has {version_field} {version}, "
                f"and this reads {version_field} {supported}.",
                next_step="pip install --upgrade splitzoo" if newer else next_step,
            )
        return model.model_validate_json(text)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        message = f"{path} is no valid {what}: {where}: {first['msg']}."
        raise error(message, next_step=next_step) from invalid
    except (OSError, UnicodeDecodeError, RecursionError) as unread:
        reason = (getattr(unread, "strerror", None) or str(unread)).lower()
        raise error(f"Cannot read {path}: {reason}.", next_step=next_step) from unread
    except ValueError as hostile:
        raise error(f"{path} is no valid {what}: {hostile}.", next_step=next_step) from hostile
