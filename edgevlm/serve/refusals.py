"""What is answered instead of an answer: a status and OpenAI's error object, in words that help."""

from __future__ import annotations

import logging

import msgspec
from starlette.responses import Response

from edgevlm.serve.replies import ErrorInfo, ErrorReply
from edgevlm_runtime.errors import (
    BundleError,
    Cancelled,
    ContextOverflow,
    EdgeVLMError,
    FormError,
    ImageError,
    PromptError,
    one_line,
)

log = logging.getLogger(__name__)

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""OpenAI's names; other statuses below 500 are an "invalid_request_error", the rest a "server_error"."""
LONGEST = 500
"""Characters of a message: what clients sent may be in it."""
RUNTIME = (
    (ImageError, 400, "invalid_image", "messages"),
    (ContextOverflow, 400, "context_length_exceeded", "messages"),
    (PromptError, 400, "invalid_prompt", "messages"),
    (FormError, 400, "invalid_response_format", "response_format"),
    (Cancelled, 503, "stopping", None),
    (BundleError, 500, "bundle", None),
)
"""What the runtime raises while it answers, with status, code and field; whatever else it raises is not the client's
fault."""


class Refusal(Exception):
    """A request that gets no answer."""

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        """`param`: the field at fault; `retry_after_s`: when to come again."""
        plain = " ".join(message.encode(errors="replace").decode().split())
        self.message = plain if len(plain) <= LONGEST else plain[: LONGEST - 3] + "..."
        self.status, self.code, self.param, self.retry_after_s = status, code, param, retry_after_s
        super().__init__(self.message)

    def body(self) -> bytes:
        """OpenAI's error object."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return msgspec.json.encode(ErrorReply(ErrorInfo(self.message, kind, self.param, self.code)))

    def response(self) -> Response:
        """As it goes to the client."""
        headers = {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return Response(self.body(), self.status, headers, media_type="application/json")


def bad(message: str, param: str | None, code: str = "invalid_value") -> Refusal:
    """400: the request says something that cannot be."""
    return Refusal(400, message, code, param)


def of_error(error: BaseException) -> Refusal:
    """What an error means to the client. What is our own fault is logged, and told without its inside."""
    for kind, status, code, param in RUNTIME:
        if isinstance(error, kind):
            return Refusal(status, one_line(error), code, param)
    if isinstance(error, EdgeVLMError):
        log.error("a request failed: %s", one_line(error))
        return Refusal(500, one_line(error), "failed")
    log.error("a request failed", exc_info=error)
    return Refusal(500, "the server failed on this request: its log says why", "failed")
