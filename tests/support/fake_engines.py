"""Puts the FAKE library and GPU of `tests.support.fake_nvidia` in place, and FAKE engines into bundles."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgevlm_runtime.bundle import manifest as schema
from edgevlm_runtime.bundle.engine_info import EngineInfo, Profile, this_platform
from tests.support.fake_cuda import SM, FakeCuda
from tests.support.fake_nvidia import VERSION


def install(monkeypatch: pytest.MonkeyPatch, library: ModuleType) -> FakeCuda:
    """Let edgevlm import the fakes."""
    cuda: FakeCuda = library.cuda
    for name, module in (("cuda", ModuleType("cuda")), ("cuda.bindings", ModuleType("cuda.bindings"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, library.__name__, library)
    return cuda


def fake_engine(onnx: Path, profiles: tuple[Profile, ...], **about: Any) -> bytes:
    """The bytes of a fake engine."""
    return json.dumps({"onnx": str(onnx), "profiles": [dict(one.sizes) for one in profiles], **about}).encode()


def add_fake_engines(
    bundle: Path, target: str = "tensorrt-rtx", sms: tuple[int, ...] = (SM,), version: str = VERSION, platform: str = ""
) -> None:
    """Give a bundle of standard graphs fake engines, recorded as `edgevlm compile` records real ones."""
    manifest = schema.decode((bundle / schema.MANIFEST_NAME).read_bytes(), "test")
    files, infos = dict(manifest.files), []
    for graph, info in manifest.graphs.items():
        name = f"engines/{target}/{graph}.engine"
        data = fake_engine(bundle / info.file, info.profiles)
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(data)
        files[name] = schema.FileRecord(hashlib.sha256(data).hexdigest(), len(data))
        infos.append(EngineInfo(graph, target, name, version, sms, platform or this_platform(), info.profiles))
    write_manifest(bundle, replace(manifest, files=files, engines=tuple(infos)))


def write_manifest(bundle: Path, manifest: schema.Manifest) -> None:
    """The manifest and its digest."""
    data = schema.encode(manifest)
    (bundle / schema.MANIFEST_NAME).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    (bundle / schema.MANIFEST_DIGEST_NAME).write_text(f"{digest}  {schema.MANIFEST_NAME}\n")
