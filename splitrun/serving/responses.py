"""JSON and errors as responses of HTTP."""

from collections.abc import Mapping

from starlette.responses import Response

from ..errors import BusyError, RequestError, SplitzooError, TokenError
from .answers import JSON, status_of, to_json


def json_response(
    document: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return JSON as Starlette sends it."""
    return Response(to_json(document), status, headers, JSON)


def error_response(error: SplitzooError, path: str) -> Response:
    """Return an error in the form of the interface that a path belongs to."""
    status, headers = status_of(error), {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, TokenError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RequestError) and status in (408, 413):
        headers["Connection"] = "close"  # what is left of the body is not read
    document = {"error": str(error)} if path.startswith("/v2") else error.document()
    return json_response(document, status, headers)
