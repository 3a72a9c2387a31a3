"""Open a bundle: read its manifest and check that every file is there and is the one the exporter wrote.

What is checked is what lies in the folder when it is opened: whoever can replace files between the check and their use
can replace the program as well.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from edgevlm_runtime._version import __version__
from edgevlm_runtime.bundle import manifest as schema
from edgevlm_runtime.bundle.graph_files import unlisted_weights
from edgevlm_runtime.bundle.manifest import FileRecord, Manifest
from edgevlm_runtime.bundle.values import check_values
from edgevlm_runtime.errors import BundleAltered, BundleError, BundleIncomplete, BundleTooNew, EdgeVLMError
from edgevlm_runtime.installing import upgrade
from edgevlm_runtime.reading import JSON_BYTES, open_regular, read_bytes, why

log = logging.getLogger(__name__)

GRAPHS = ("vision_encoder", "projector", "decoder")
_AGAIN = "copy or export the bundle again"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle."""

    path: Path
    manifest: Manifest
    digest: str
    """sha256 of the manifest, which holds the digest of every other file: two bundles with one digest are the same."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: str = "full") -> Bundle:
        """Open the bundle in folder `path`. `verify`: "full" reads every file and compares its sha256, "size" only
        looks at presence and size; both compare the manifest's own. "none" reads the manifest, as it is, alone.

        Raises `BundleError` when the folder is no bundle, `BundleTooNew`, `BundleIncomplete`, `BundleAltered`.
        """
        if verify not in ("full", "size", "none"):
            raise EdgeVLMError(f'bad value for verify: {verify!r}: it must be "full" or "size"')
        if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
            raise BundleError(f"not the path of a bundle: {path!r}: pass the folder that `edgevlm export` made")
        folder = Path(path)
        data = _read_manifest(folder)
        where = str(folder / schema.MANIFEST_NAME)
        sealed = verify == "none" or _check_manifest_digest(folder, data)
        manifest = schema.decode(data, where)
        if not sealed:
            _without_digest(folder, manifest)
        _check_runtime_version(manifest.min_runtime_version, where)
        _check_references(manifest, where)
        check_values(manifest, where)
        for name in manifest.files:
            _check_name(name, where)
        if verify != "none":
            check_sizes(folder, manifest)
        if verify == "full":
            altered = altered_files(folder, manifest)
            if altered:
                raise BundleAltered(f"{folder / altered[0]} is not the file the exporter wrote: {_AGAIN}")
        if verify != "none":
            for file, problem in unlisted_weights(folder, manifest):
                raise BundleError(f"{folder / file} {problem}: {_AGAIN}")
        return cls(folder, manifest, hashlib.sha256(data).hexdigest())

    @property
    def content_digest(self) -> str:
        """sha256 of the manifest as it was before any engine was compiled: what is fitted or measured for a bundle and
        kept outside it stays valid when `edgevlm compile` adds engines, which hold the same weights."""
        engines = {engine.file for engine in self.manifest.engines}
        if not engines:
            return self.digest
        files = {name: record for name, record in self.manifest.files.items() if name not in engines}
        return hashlib.sha256(schema.encode(replace(self.manifest, engines=(), files=files))).hexdigest()

    def file(self, name: str) -> Path:
        """Where a file of the bundle lies; `name` as in the manifest. Raises `BundleError` for one it does not name."""
        if name not in self.manifest.files:
            raise BundleError(f"the manifest of {self.path} names no file {name!r}: {_AGAIN}")
        return self.path / name


def file_sha256(path: Path) -> str:
    """The file's sha256, hexadecimal, as `sha256sum` prints it; read in small parts. Raises `OSError`."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raise `BundleIncomplete` for the first file that is missing or has another size."""
    for name, record in manifest.files.items():
        file = folder / name
        try:
            with open_regular(file) as opened:
                size = os.fstat(opened.fileno()).st_size
        except FileNotFoundError:
            raise BundleIncomplete(f"missing file: {file}: {_AGAIN}") from None
        except OSError as error:
            raise BundleIncomplete(f"cannot read {file}: {why(error)}: {_AGAIN}") from error
        if size != record.bytes:
            raise BundleIncomplete(f"{file} has {size} bytes instead of {record.bytes}: {_AGAIN}")


def altered_files(folder: Path, manifest: Manifest) -> list[str]:
    """Names of files whose sha256 is not the manifest's. Hashes several at once (hashlib releases the GIL)."""

    def differs(item: tuple[str, FileRecord]) -> bool:
        file = folder / item[0]
        try:
            return file_sha256(file) != item[1].sha256.lower()
        except OSError as error:
            raise BundleIncomplete(f"cannot read {file}: {why(error)}: {_AGAIN}") from error

    largest_first = sorted(manifest.files.items(), key=lambda item: -item[1].bytes)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        verdicts = list(pool.map(differs, largest_first))
    return sorted(name for (name, _), bad in zip(largest_first, verdicts, strict=True) if bad)


def _read_manifest(folder: Path) -> bytes:
    file = folder / schema.MANIFEST_NAME
    pass_one = "pass the folder that `edgevlm export` made"
    try:
        return read_bytes(file, JSON_BYTES)
    except FileNotFoundError:
        if folder.is_dir():
            raise BundleIncomplete(f"not a bundle: {folder} has no {schema.MANIFEST_NAME}: {pass_one}") from None
        raise BundleError(f"no such bundle: {folder}: {pass_one}") from None
    except NotADirectoryError:
        raise BundleError(f"not a bundle: {folder} is no folder: {pass_one}") from None
    except OSError as error:
        raise BundleError(f"cannot read {file}: {why(error)}: {pass_one}") from error


def _check_manifest_digest(folder: Path, data: bytes) -> bool:
    """Compare the manifest with its digest; False where there is none, as in the first bundles (schema 1)."""
    file = folder / schema.MANIFEST_DIGEST_NAME
    try:
        line = read_bytes(file, schema.MANIFEST_DIGEST_BYTES)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BundleIncomplete(f"cannot read {file}: {why(error)}: {_AGAIN}") from error
    if line.split()[:1] != [hashlib.sha256(data).hexdigest().encode()]:
        raise BundleAltered(f"{folder / schema.MANIFEST_NAME} is not what {file.name} says: {_AGAIN}")
    return True


def _without_digest(folder: Path, manifest: Manifest) -> None:
    """Raise `BundleIncomplete`, but for the first schema, whose bundles may have none: that is told."""
    if manifest.schema_version > 1:
        raise BundleIncomplete(f"missing file: {folder / schema.MANIFEST_DIGEST_NAME}: {_AGAIN}")
    log.warning("%s has no %s: its manifest is used unchecked", folder, schema.MANIFEST_DIGEST_NAME)


def _check_runtime_version(wanted: str, where: str) -> None:
    if not re.match(r"\d{1,9}(\.\d{1,9})*(?!\d)", wanted):
        raise BundleError(f"damaged bundle manifest: {where}: min_runtime_version is {wanted!r}: {_AGAIN}")
    if _release(wanted) > _release(__version__):
        raise BundleTooNew(
            f"bundle needs edgevlm-runtime {wanted} or later, this is {__version__}: {where}: {upgrade()}"
        )


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version's release part, without trailing zeros: "1.2.0rc1" gives (1, 2)."""
    release = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in release.group().split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _check_name(name: str, where: str) -> None:
    """Refuse names that leave the bundle's folder: a manifest is input, and may come from anywhere."""
    pure = PurePosixPath(name)
    plain = name and not any(sign in name for sign in "\\:*\0")  # onnxruntime's names for memory begin with "*"
    if not plain or pure.is_absolute() or ".." in pure.parts or str(pure) != name or name == schema.MANIFEST_NAME:
        raise BundleError(f"damaged bundle manifest: {where}: bad file name {name!r}: {_AGAIN}")


def _check_references(manifest: Manifest, where: str) -> None:
    """Every file the manifest speaks of has a digest, so that nothing unchecked is ever read."""
    for graph in GRAPHS:
        if graph not in manifest.graphs:
            raise BundleError(f"damaged bundle manifest: {where}: no {graph} graph: {_AGAIN}")
    for name in _references(manifest):
        if name not in manifest.files:
            raise BundleError(f"damaged bundle manifest: {where}: no digest for {name!r}: {_AGAIN}")


def _references(manifest: Manifest) -> Iterator[str]:
    yield from (graph.file for graph in manifest.graphs.values())
    yield from (weight.blocks.file for graph in manifest.graphs.values() for weight in graph.widened)
    yield from (engine.file for engine in manifest.engines)
    yield manifest.decoder.embedding.file
    yield from (columns.table.file for columns in manifest.decoder.token_columns)
    if manifest.decoder.prefix is not None:
        yield manifest.decoder.prefix.file
    yield manifest.prompt.tokenizer
    yield manifest.prompt.chat_template
    if manifest.self_test is not None:
        yield manifest.self_test.image
        yield manifest.self_test.embeddings
