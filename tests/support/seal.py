"""The digest of a bundle's manifest, for tests that write or change one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from edgevlm_runtime.bundle.manifest import MANIFEST_DIGEST_NAME, MANIFEST_NAME


def seal(bundle: Path) -> None:
    """Write the digest of the manifest as it is."""
    digest = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
    (bundle / MANIFEST_DIGEST_NAME).write_text(f"{digest}  {MANIFEST_NAME}\n", encoding="ascii")


def write_manifest(bundle: Path, content: str | dict[str, Any]) -> None:
    """Put a manifest, whatever it holds, into the bundle, with its digest."""
    text = content if isinstance(content, str) else json.dumps(content)
    (bundle / MANIFEST_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    seal(bundle)
