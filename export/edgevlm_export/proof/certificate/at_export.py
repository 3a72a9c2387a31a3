"""The certificate as a step of an export: measure the bundle before it gets its manifest."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from edgevlm_export.checkpoints.checkpoint import WeightSource
from edgevlm_export.planning.plan import Progress
from edgevlm_export.proof import selftest
from edgevlm_export.proof.certificate.certify import certify, not_checked, write
from edgevlm_export.proof.certificate.fewer import cost, with_cost
from edgevlm_export.proof.certificate.weights import other_weights
from edgevlm_export.reference import ReferenceTooLarge, given_template, open_reference
from edgevlm_export.reference.memory import available
from edgevlm_export.streaming.material import ImagePrompt
from edgevlm_export.writing.bundle import file_records
from edgevlm_runtime.bundle.certificate import CERTIFICATE_NAME, Certificate
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import Manifest
from edgevlm_runtime.errors import ExportError, reason

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the comparison gave."""

    certificate: Certificate
    failure: str | None = None
    """What of the reference failed while it ran, in words; the certificate then says that nothing was checked."""


def attach(
    folder: Path,
    manifest: Manifest,
    weights: WeightSource,
    allow_drift: str | None,
    progress: Progress,
    asked: Iterable[ImagePrompt] = (),
) -> tuple[Manifest, Measured]:
    """Write the certificate of the bundle in `folder`, made from the checkpoint that `weights` reads; the manifest with
    it. `asked`: questions about pictures of the task, which show what fewer image tokens cost.

    A model that memory does not hold runs layer by layer. Where that is not possible either, or PyTorch cannot load
    the model (a package that is missing), the certificate says so and measures nothing.
    """
    measured = _measure(Bundle(folder, manifest, digest=""), weights, progress, asked)
    certificate = measured.certificate
    if certificate.missed and allow_drift is not None:
        certificate = replace(certificate, allowed_drift=allow_drift)
    write(folder, certificate)
    manifest = replace(manifest, files=manifest.files | file_records(folder, CERTIFICATE_NAME))
    return manifest, replace(measured, certificate=certificate)


def _measure(bundle: Bundle, weights: WeightSource, progress: Progress, asked: Iterable[ImagePrompt]) -> Measured:
    needed = selftest.run_bytes(bundle.manifest)
    model = weights.folder
    try:
        if needed > available():
            raise ReferenceTooLarge(
                f"the bundle needs about {needed / 2**30:.1f} GiB to run, {available() / 2**30:.1f} GiB are available"
            )
        reference = open_reference(
            str(model), beside=needed, chat_template=given_template(bundle), images=bundle.manifest.image
        )
    except ExportError as error:
        logger.warning("the bundle is not compared with PyTorch: %s", error)
        return Measured(not_checked(bundle, model.name, str(error)))
    try:
        other = tuple(other_weights(weights, reference))
        certificate = certify(bundle, reference, progress)
        if bundle.manifest.image.fewer is not None:
            certificate = with_cost(certificate, cost(bundle, reference, asked, progress))
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # whatever PyTorch and the processor raise on a prompt; a panic is no Exception
        logger.debug("the comparison failed", exc_info=True)
        failure = f"{type(error).__name__}: {reason(error)}"
        return Measured(not_checked(bundle, model.name, failure), failure)
    return Measured(replace(certificate, missed=(*other, *certificate.missed)))
