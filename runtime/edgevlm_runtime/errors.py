"""The one exception tree of edgevlm. Every error a user can cause is an `EdgeVLMError`.

EdgeVLMError                 what, where, what to do: one line; the command line adds `Error: `, exit code 2
|-- BundleError              the folder is not a bundle that this runtime can use
|   |-- BundleIncomplete     a file is missing, or shorter or longer than the manifest says
|   |-- BundleAltered        a file's bytes are not those the exporter wrote
|   `-- BundleTooNew         written by a newer exporter, in a schema this runtime does not know
|-- ImageError               not an image, truncated, or too large to decode safely
|-- PromptError              the prompt cannot be used
|   `-- ContextOverflow      prompt and images need more tokens than the context holds
|-- FormError                the form that an answer shall have is wrong, too complex, or not to be had here
|-- ProviderError            an execution provider was asked for and did not load
|-- Cancelled                generation was cancelled by the caller
`-- ExportError              (raised by edgevlm_export) the checkpoint cannot be exported
    |-- CheckpointError      a checkpoint file is missing, truncated or unreadable
    |-- UnsupportedModel     no family or decoder is known for this architecture
    |-- OutputError          the output folder exists, or the disk cannot hold the bundle
    |-- ParityMissed         the bundle is too far from the PyTorch model; it is kept aside (exit code 1)
    `-- ComparisonFailed     the PyTorch model failed while the bundle was compared with it; it is kept aside
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


class EdgeVLMError(Exception):
    """Base of everything edgevlm raises on bad input; the message is one line for the user."""


class BundleError(EdgeVLMError):
    """The folder is not a bundle that this runtime can use."""


class BundleIncomplete(BundleError):
    """A file named in the manifest is missing or has another size."""


class BundleAltered(BundleError):
    """A file's digest differs from the manifest's."""


class BundleTooNew(BundleError):
    """The bundle's schema, or the runtime version it asks for, is newer than this runtime."""


class ImageError(EdgeVLMError):
    """The image cannot be read, or is too large to decode safely."""


class PromptError(EdgeVLMError):
    """The prompt cannot be used."""


class ContextOverflow(PromptError):
    """Prompt, images and new tokens do not fit the context."""


class FormError(EdgeVLMError):
    """The form that an answer shall have cannot be used."""


class ProviderError(EdgeVLMError):
    """An execution provider was asked for and is not there, or did not load."""


class Cancelled(EdgeVLMError):
    """The caller cancelled the generation."""


class ExportError(EdgeVLMError):
    """The checkpoint cannot be exported."""


class CheckpointError(ExportError):
    """A file of the checkpoint is missing, truncated or unreadable."""


class UnsupportedModel(ExportError):
    """No family, decoder or vision tower is known for this architecture."""


class OutputError(ExportError):
    """The output folder exists already, or the disk cannot hold the bundle."""


class ParityMissed(ExportError):
    """The bundle was written and is too far from the PyTorch model."""

    def __init__(self, aside: Path, missed: Sequence[str]) -> None:
        """`aside`: where the bundle was kept; `missed`: thresholds that were not reached, in words."""
        self.aside = aside
        self.missed = tuple(missed)
        super().__init__(
            f"too far from the PyTorch model: {'; '.join(missed)}: the bundle is kept in {aside}: "
            "choose another precision, or say why it is wanted with --allow-drift"
        )


LONGEST_REASON = 200


class ComparisonFailed(ExportError):
    """The bundle was written and is not checked: the PyTorch model failed while it was compared."""

    def __init__(self, aside: Path, failure: str) -> None:
        """`aside`: where the bundle was kept; `failure`: what failed, in words."""
        self.aside = aside
        super().__init__(
            f"the comparison with PyTorch failed: {failure}: the bundle is complete, and nothing of it is compared: "
            f"it is kept in {aside}: mend the checkpoint, or export with --no-certificate"
        )


def reason(error: BaseException) -> str:
    """What another library's error says, on one line of at most 200 characters; its type's name when it is silent."""
    text = one_line(error)
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."
