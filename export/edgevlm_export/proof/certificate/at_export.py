"""The certificate as a step of an export: measure the bundle before it gets its manifest."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from edgevlm_export.planning.plan import Progress
from edgevlm_export.proof import selftest
from edgevlm_export.proof.certificate.certify import certify, not_checked, write
from edgevlm_export.reference import ReferenceTooLarge, given_template, open_reference
from edgevlm_export.reference.memory import available
from edgevlm_export.writing.bundle import file_records
from edgevlm_runtime.bundle.certificate import CERTIFICATE_NAME, Certificate
from edgevlm_runtime.bundle.folder import Bundle
from edgevlm_runtime.bundle.manifest import Manifest
from edgevlm_runtime.errors import ExportError

logger = logging.getLogger(__name__)


def attach(
    folder: Path, manifest: Manifest, model: Path, allow_drift: str | None, progress: Progress
) -> tuple[Manifest, Certificate]:
    """Write the certificate of the bundle in `folder`, made from the checkpoint `model`; the manifest with it.

    A model that memory does not hold runs layer by layer. Where that is not possible either, or PyTorch cannot load
    the model (a package that is missing), the certificate says so and measures nothing.
    """
    certificate = _measure(Bundle(folder, manifest, digest=""), model, progress)
    if certificate.missed and allow_drift is not None:
        certificate = dataclasses.replace(certificate, allowed_drift=allow_drift)
    write(folder, certificate)
    return dataclasses.replace(manifest, files=manifest.files | file_records(folder, CERTIFICATE_NAME)), certificate


def _measure(bundle: Bundle, model: Path, progress: Progress) -> Certificate:
    needed = selftest.run_bytes(bundle.manifest)
    try:
        if needed > available():
            raise ReferenceTooLarge(
                f"the bundle needs about {needed / 2**30:.1f} GiB to run, {available() / 2**30:.1f} GiB are available"
            )
        reference = open_reference(str(model), beside=needed, chat_template=given_template(bundle))
    except ExportError as error:
        logger.warning("the bundle is not compared with PyTorch: %s", error)
        return not_checked(bundle, model.name, str(error))
    return certify(bundle, reference, progress)
