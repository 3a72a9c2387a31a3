"""Ask a bundle its own stored question: does it still answer here as it did where it was exported?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.bundle.manifest import SelfTest
from edgevlm_runtime.errors import BundleError
from edgevlm_runtime.model import VLM
from edgevlm_runtime.reading import read_array, why


@dataclass(frozen=True, slots=True)
class SelfTestResult:
    """What came out, and whether it is what the exporter stored."""

    passed: bool
    embeddings_max_abs: float
    """Largest difference of an image embedding's element from the stored one (inf when the shapes differ)."""
    tolerance: float
    """What `embeddings_max_abs` may be."""
    token_ids: tuple[int, ...]
    expected_token_ids: tuple[int, ...]

    @property
    def embeddings_match(self) -> bool:
        """Whether the image embeddings are within the tolerance."""
        return self.embeddings_max_abs <= self.tolerance

    @property
    def tokens_match(self) -> bool:
        """Whether greedy generation gave the stored tokens."""
        return self.token_ids == self.expected_token_ids


def run_self_test(vlm: VLM) -> SelfTestResult:
    """Encode the stored image anew (the image cache is passed by) and answer the stored prompt greedily.

    Raises `BundleError` when the bundle has no self-test or its stored embeddings cannot be read.
    """
    stored = vlm.manifest.self_test
    if stored is None:
        raise BundleError(f"{vlm.bundle.path} has no self-test: export the model again")
    image = vlm.bundle.file(stored.image)
    difference = _difference(
        vlm.pipeline.encoder.compute(vlm.pipeline.prepare(image)).embeddings, _expected(vlm, stored)
    )
    answer = vlm.ask(
        image, stored.prompt, temperature=0.0, max_new_tokens=max(1, len(stored.token_ids)), logprobs=False
    )
    return SelfTestResult(
        passed=difference <= stored.tolerance and answer.token_ids == stored.token_ids,
        embeddings_max_abs=difference,
        tolerance=stored.tolerance,
        token_ids=answer.token_ids,
        expected_token_ids=stored.token_ids,
    )


def _expected(vlm: VLM, stored: SelfTest) -> NDArray[np.float32]:
    file = vlm.bundle.file(stored.embeddings)
    try:
        expected = read_array(file)
    except OSError as error:
        raise BundleError(
            f"cannot read the self-test's embeddings: {file}: {why(error)}: export the model again"
        ) from error
    if expected.dtype != np.float32:
        raise BundleError(f"the self-test's embeddings are {expected.dtype}, not float32: {file}: export again")
    return expected.astype(np.float32)


def _difference(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Largest absolute difference; infinite for other shapes and for anything that is no number."""
    if got.shape != expected.shape:
        return float("inf")
    largest = float(np.max(np.abs(got.astype(np.float64) - expected), initial=0.0))
    return largest if np.isfinite(largest) else float("inf")
