"""Is this bundle still what the exporter wrote, and does it still answer here as it did there?

    bundle, files = check_files("inspector-int8/")     # every file's digest; names all that are bad, not only the first
    result = check_self_test(bundle, "cpu")            # stored image and prompt, on one execution provider

`manifest.json` holds the digest of every other file; its own is in `manifest.sha256`, in the form of `sha256sum`.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from edgevlm_runtime.bundle.folder import Bundle, altered_files
from edgevlm_runtime.bundle.graph_files import unlisted_weights
from edgevlm_runtime.bundle.manifest import MANIFEST_DIGEST_BYTES, MANIFEST_DIGEST_NAME, MANIFEST_NAME, Manifest
from edgevlm_runtime.checks.selftest import SelfTestResult, run_self_test
from edgevlm_runtime.errors import BundleError, EdgeVLMError, ProviderError
from edgevlm_runtime.model import load
from edgevlm_runtime.options import runtime_options
from edgevlm_runtime.reading import JSON_BYTES, read_bytes, why

_ALTERED = "its bytes are not those the exporter wrote"
_SEAL = f"sha256sum {MANIFEST_NAME} > {MANIFEST_DIGEST_NAME}"


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file of the bundle, and what is wrong with it."""

    file: str
    """Its path in the bundle."""
    problem: str
    """What is wrong, in one line."""


_NO_DIGEST = BadFile(
    MANIFEST_DIGEST_NAME,
    f"it is missing, so that nothing tells whether {MANIFEST_NAME} is what the exporter wrote: copy it again, or, "
    f"where an early exporter made the bundle and you know it, write it there with `{_SEAL}`",
)


@dataclass(frozen=True, slots=True)
class FilesReport:
    """What the digests say."""

    checked: int
    """How many files."""
    bad: tuple[BadFile, ...]
    """Those that are not what the exporter wrote."""
    manifest_checked: bool
    """Whether the manifest itself has a digest to compare with; where it has none, that is among `bad`."""


@dataclass(frozen=True, slots=True)
class ProviderResult:
    """The self-test on one execution provider, or one engine that has none to choose."""

    provider: str
    """As it was asked for."""
    passed: bool
    """Whether it answers as the bundle says."""
    problem: str | None
    """What is wrong, in one line."""
    embeddings_max_abs: float | None = None
    """Largest difference of a value of the image embeddings from the stored ones."""
    tolerance: float | None = None
    """How large that may be."""
    tokens_equal: bool | None = None
    """Whether the answer's tokens are the stored ones."""
    engine: str | None = None
    """What answered: library, version, provider or GPU; None where nothing could be loaded."""
    reason: str | None = None
    """Why it was this engine: "as asked", or how "auto" decided."""


def check_files(path: str | os.PathLike[str]) -> tuple[Bundle | None, FilesReport]:
    """The bundle (None when its manifest cannot be used) and what is wrong with its files.

    Raises `BundleError` when there is no bundle to check, `BundleTooNew` for one that this runtime cannot judge.
    """
    folder = Path(path)
    checked = (folder / MANIFEST_DIGEST_NAME).is_file()
    wrong = _manifest_problem(folder) if checked else None
    try:
        bundle = Bundle.open(path, verify="none")
    except BundleError as error:
        if not (folder / MANIFEST_NAME).is_file() or (wrong is None and type(error) is not BundleError):
            raise
        return None, FilesReport(1, (wrong or BadFile(MANIFEST_NAME, str(error)),), checked)
    bad = _bad_files(folder, bundle.manifest)
    whole = {name: info for name, info in bundle.manifest.graphs.items() if info.file not in {one.file for one in bad}}
    bad += _unlisted(folder, replace(bundle.manifest, graphs=whole))
    first = wrong if checked else _NO_DIGEST
    return bundle, FilesReport(len(bundle.manifest.files) + 1, (*([first] if first else []), *bad), checked)


def check_self_test(bundle: Bundle, provider: str, threads: int | None = None, engine: str = "ort") -> ProviderResult:
    """Ask the stored question on `provider`, or on another engine, which `provider` then names in the result alone.

    Raises `ProviderError` when that is not available here, `EdgeVLMError` for bad values, which say nothing about the
    bundle.
    """
    chosen = {"provider": provider} if engine == "ort" else {}
    options = {"engine": engine, "threads": threads, "verify": "size", **chosen}
    runtime_options(options)
    try:
        vlm = load(bundle.path, **options)
    except ProviderError:
        raise
    except EdgeVLMError as error:
        return ProviderResult(provider, False, str(error))
    identity, reason = vlm.engine.identity, vlm.engine.reason
    try:
        result = run_self_test(vlm)
    except EdgeVLMError as error:
        return ProviderResult(provider, False, str(error), engine=identity, reason=reason)
    return ProviderResult(
        provider,
        result.passed,
        self_test_problem(result),
        result.embeddings_max_abs,
        result.tolerance,
        result.tokens_match,
        identity,
        reason,
    )


def _manifest_problem(folder: Path) -> BadFile | None:
    """Compare the manifest with its digest; None also where the manifest itself cannot be read."""
    try:
        line = read_bytes(folder / MANIFEST_DIGEST_NAME, MANIFEST_DIGEST_BYTES)
    except OSError as error:
        return BadFile(MANIFEST_DIGEST_NAME, f"it cannot be read: {why(error)}")
    try:
        data = read_bytes(folder / MANIFEST_NAME, JSON_BYTES)
    except OSError:
        return None
    digest = hashlib.sha256(data).hexdigest()
    if line == f"{digest}  {MANIFEST_NAME}\n".encode():
        return None
    if not re.fullmatch(rf"[0-9a-f]{{{len(digest)}}}  {re.escape(MANIFEST_NAME)}\n".encode(), line):
        return BadFile(MANIFEST_DIGEST_NAME, "it is not a line of sha256sum")
    return BadFile(MANIFEST_NAME, f"it is not what {MANIFEST_DIGEST_NAME} says: one of the two was altered")


def _bad_files(folder: Path, manifest: Manifest) -> list[BadFile]:
    bad, whole = {}, {}
    for name, record in manifest.files.items():
        file = folder / name
        if not file.is_file():
            bad[name] = "it is missing"
        elif (size := file.stat().st_size) != record.bytes:
            bad[name] = f"it has {size} bytes instead of {record.bytes}"
        else:
            whole[name] = record
    bad |= dict.fromkeys(altered_files(folder, replace(manifest, files=whole)), _ALTERED)
    return [BadFile(name, problem) for name, problem in sorted(bad.items())]


def _unlisted(folder: Path, manifest: Manifest) -> list[BadFile]:
    try:
        return [BadFile(file, f"it {problem}") for file, problem in unlisted_weights(folder, manifest)]
    except BundleError as error:
        return [BadFile(MANIFEST_NAME, str(error))]


def self_test_problem(result: SelfTestResult) -> str | None:
    """Names the part that answers otherwise: embeddings come from the first two graphs, tokens from the decoder."""
    if not result.embeddings_match:
        return (
            f"vision encoder, projector or image preprocessing: the stored image's embeddings are off by "
            f"{result.embeddings_max_abs:.3g}, {result.tolerance:.3g} is allowed"
        )
    if not result.tokens_match:
        got, expected = result.token_ids, result.expected_token_ids
        pairs = enumerate(zip(got, expected, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), min(len(got), len(expected)))
        return f"decoder, tokenizer or prompt: the stored answer differs from token {same + 1} on"
    return None
