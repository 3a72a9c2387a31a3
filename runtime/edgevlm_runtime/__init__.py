"""Answer questions about images from an edgevlm bundle, without torch.

import edgevlm_runtime
vlm = edgevlm_runtime.load("llava-int8/")
with vlm.session("part.png") as session:
    print(session.ask("Is there a scratch?"))
"""

from edgevlm_runtime._version import __version__
from edgevlm_runtime.asking.answer import Answer, Timings
from edgevlm_runtime.asking.chat import Chat
from edgevlm_runtime.asking.choices import Choice
from edgevlm_runtime.asking.session import Session
from edgevlm_runtime.asking.stream import AnswerStream
from edgevlm_runtime.errors import (
    BundleAltered,
    BundleError,
    BundleIncomplete,
    BundleTooNew,
    Cancelled,
    ContextOverflow,
    EdgeVLMError,
    FormError,
    ImageError,
    PromptError,
    ProviderError,
)
from edgevlm_runtime.form import Form
from edgevlm_runtime.model import VLM, load
from edgevlm_runtime.options import GenerationOptions, RuntimeOptions
from edgevlm_runtime.privacy import switch_reports_off

__all__ = [
    "VLM",
    "Answer",
    "AnswerStream",
    "BundleAltered",
    "BundleError",
    "BundleIncomplete",
    "BundleTooNew",
    "Cancelled",
    "Chat",
    "Choice",
    "ContextOverflow",
    "EdgeVLMError",
    "Form",
    "FormError",
    "GenerationOptions",
    "ImageError",
    "PromptError",
    "ProviderError",
    "RuntimeOptions",
    "Session",
    "Timings",
    "__version__",
    "load",
]

switch_reports_off()  # before anything here imports onnxruntime, which reads the environment once
