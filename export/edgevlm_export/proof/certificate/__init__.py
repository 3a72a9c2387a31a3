"""Measure how close a bundle is to the PyTorch model it was made from.

    certificate = certify(Bundle.open("inspector-int8"), Reference.load("inspector"))
    certificate.missed          # thresholds that were not reached, as records

Both are asked the same on the named inputs of `inputs`; nothing of the runtime's preprocessing reaches the reference.
"""

from edgevlm_export.proof.certificate.at_export import Measured, attach
from edgevlm_export.proof.certificate.certify import allowed_misses, certify, differences, not_checked, write
from edgevlm_export.proof.certificate.thresholds import thresholds_for

__all__ = ["Measured", "allowed_misses", "attach", "certify", "differences", "not_checked", "thresholds_for", "write"]
