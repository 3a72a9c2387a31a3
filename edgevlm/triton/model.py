"""A bundle behind Triton's Python backend: this file is `MODEL/1/model.py` of a repository that `edgevlm triton` wrote.

Needs edgevlm-runtime in the Python of Triton's backend. The whole answer is made here, token by token; the model is
decoupled, so that each piece of text is a response. The last response has `finish_reason`, which is empty before.
An error is the only response of its request.

Verified with Triton 2.51 on a processor, whose Python needs numpy below 2; unverified with others (docs/scale.md).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

import edgevlm_runtime
from edgevlm_runtime import EdgeVLMError, Form

log = logging.getLogger(__name__)

BUNDLE = "bundle"
"""Folder of the bundle, beside this file."""
WHOLE_NUMBERS = ("threads", "max_context")
"""Parameters of `config.pbtxt` that are numbers; `provider` and `engine` are names."""


class TritonPythonModel:
    """What Triton calls, by these names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle, by the parameters of the configuration. Raises what `edgevlm_runtime.load` raises."""
        given = {name: one["string_value"] for name, one in json.loads(args["model_config"])["parameters"].items()}
        options = {name: int(value) if name in WHOLE_NUMBERS else value for name, value in given.items() if value}
        folder = Path(args["model_repository"]) / args["model_version"] / BUNDLE
        self._vlm = edgevlm_runtime.load(folder, **options)

    def execute(self, requests: list[Any]) -> None:
        """Answer each request through its own sender."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._answer(request, sender)
            except EdgeVLMError as error:
                _send_error(sender, str(error))
            except Exception as error:  # a fault of ours ends one request, not the server's process
                log.exception("a request failed")
                _send_error(sender, f"{type(error).__name__}: {error}")

    def finalize(self) -> None:
        """Give the memory back."""
        del self._vlm

    def _answer(self, request: Any, sender: Any) -> None:
        question = _texts(request, "question")
        if len(question) != 1:
            raise EdgeVLMError(f"one question is needed, got {len(question)}")
        choices, schema, system = (_texts(request, name) for name in ("choices", "schema", "system"))
        if choices and schema:
            raise EdgeVLMError("choices generate nothing: leave out the schema")
        with self._vlm.session(_cells(request, "image"), system=system[0] if system else None) as session:
            if choices:
                choice = session.choose(question[0], choices)
                _send(sender, choice.best, "choice", list(choice.probabilities.values()), last=True)
                return
            options: dict[str, Any] = {"form": Form.json(schema[0])} if schema else {}
            numbers = triton.get_input_tensor_by_name(request, "max_new_tokens")
            if numbers is not None:
                options["max_new_tokens"] = int(numbers.as_numpy().flat[0])
            pieces = session.stream(question[0], **options)
            for piece in pieces:
                if sender.is_cancelled():
                    session.cancel()
                else:
                    _send(sender, piece)
            _send(sender, "", pieces.answer.finish_reason, last=True)


def _cells(request: Any, name: str) -> list[bytes]:
    """The bytes of each element of an input; none where it was not given."""
    tensor = triton.get_input_tensor_by_name(request, name)
    return [] if tensor is None else [bytes(cell) for cell in tensor.as_numpy().ravel()]


def _texts(request: Any, name: str) -> list[str]:
    try:
        return [cell.decode() for cell in _cells(request, name)]
    except UnicodeDecodeError as error:
        raise EdgeVLMError(f"{name} is no UTF-8 text: {error.reason}") from error


def _send(
    sender: Any, text: str, finish_reason: str = "", probabilities: list[float] | None = None, last: bool = False
) -> None:
    tensors = [
        triton.Tensor("text", np.array([text.encode()], np.object_)),
        triton.Tensor("finish_reason", np.array([finish_reason.encode()], np.object_)),
        triton.Tensor("probabilities", np.array(probabilities or [], np.float64)),
    ]
    sender.send(triton.InferenceResponse(tensors), flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0)


def _send_error(sender: Any, message: str) -> None:
    response = triton.InferenceResponse(error=triton.TritonError(message))
    sender.send(response, flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
