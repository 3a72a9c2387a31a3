"""Engines and kinds of images by name: ours first, then those of other installed packages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime.bundle.manifest import ImageProcessing
from edgevlm_runtime.decoding import tuning
from edgevlm_runtime.engines import ENGINES, make_engine
from edgevlm_runtime.engines.base import GraphRequest
from edgevlm_runtime.errors import BundleError, ProviderError
from edgevlm_runtime.images import KINDS, make_processor
from edgevlm_runtime.options import RuntimeOptions
from edgevlm_runtime.registry import Registry
from tests.support.packages import installed

Install = Callable[..., None]

ENGINE = '''
from dataclasses import replace
from edgevlm_runtime.engines import ort

ASKED = []

class Mixed:
    """One engine for the decoder, another for the other graphs."""

    identity, reason, automatic = "acme 1", "as asked", False

    def __init__(self, options):
        self.one, self.other = (ort.make_engine(replace(options, engine="ort", threads=count)) for count in (1, 2))

    def fallback(self, error):
        return None

    def load(self, request):
        ASKED.append(request)
        return (self.one if request.name == "decoder" else self.other).load(request)

make_engine = Mixed
'''
KIND = """
from dataclasses import dataclass
import numpy as np
from edgevlm_runtime.images import PreparedImage

@dataclass(frozen=True)
class Options:
    side: int

class Processor:
    def __init__(self, options):
        self.side = options.side

    def __call__(self, image):
        pixels = np.asarray(image.resize((self.side, self.side)), dtype=np.uint8)[None]
        return PreparedImage({"pixels": pixels}, 1, "<image>")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    def add(package: str, group: str, points: dict[str, str], **modules: str) -> None:
        monkeypatch.syspath_prepend(installed(tmp_path / package, package, group, points, **modules))
        for name in modules:
            monkeypatch.delitem(sys.modules, name, raising=False)

    return add


def test_engine_of_another_package_answers(install: Install, handmade_bundle: Path) -> None:
    install("acme", "edgevlm.engines", {"acme-npu": "acme_engine:make_engine"}, acme_engine=ENGINE)
    assert list(ENGINES)[-1] == "acme-npu"
    picture = Image.new("RGB", (20, 30), "red")
    ours, theirs = (
        edgevlm_runtime.load(handmade_bundle, engine=name).ask(picture, "what is it") for name in ("ort", "acme-npu")
    )
    assert ours.token_ids == theirs.token_ids


def test_engine_of_another_package_is_given_what_ours_are(install: Install, handmade_bundle: Path) -> None:
    """The bundle, each of its graphs by name, and how it will be run."""
    install("acme", "edgevlm.engines", {"acme-npu": "acme_engine:make_engine"}, acme_engine=ENGINE)
    vlm = edgevlm_runtime.load(handmade_bundle, engine="acme-npu", threads=1)
    asked: list[GraphRequest] = sys.modules["acme_engine"].ASKED
    assert [request.name for request in asked] == list(vlm.manifest.graphs)
    assert [request.name for request in asked if request.repeated] == ["decoder"]
    for request in asked:
        assert request.bundle is vlm.bundle
        assert request.path == handmade_bundle / vlm.manifest.graphs[request.name].file
        assert request.attention_scores == 2 * tuning.DEFAULT_CHUNK * vlm.manifest.decoder.max_context, "2 heads"
        with pytest.raises(FrozenInstanceError):
            request.name = "another"  # type: ignore[misc]


def test_image_kind_of_another_package(install: Install) -> None:
    install("acme", "edgevlm.image_kinds", {"acme": "acme_kind"}, acme_kind=KIND)
    prepared = make_processor(ImageProcessing("acme", {"side": 3}))(Image.new("RGB", (9, 7), "white"))
    assert np.array_equal(prepared.feeds["pixels"], np.full((1, 3, 3, 3), 255, np.uint8))
    with pytest.raises(BundleError, match="'acme' has bad options"):
        make_processor(ImageProcessing("acme", {"side": "wide"}))


@pytest.mark.parametrize("name", list(ENGINES))
def test_built_in_names_are_not_taken_and_cost_no_search(
    install: Install, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    install("acme", "edgevlm.engines", {name: "acme_engine:make_engine"}, acme_engine="raise SystemError")
    names = list(ENGINES)
    assert len(names) == len(set(names))
    monkeypatch.setattr(metadata, "entry_points", lambda **_: pytest.fail("all installed packages were read"))
    assert ENGINES.get(name).__module__.startswith("edgevlm_runtime.")


@pytest.mark.parametrize(
    "code", ["raise RuntimeError('no licence')", "import not_there_at_all", "def broken(:", "engine = None"]
)
def test_package_that_cannot_be_loaded_is_named(install: Install, code: str) -> None:
    install("acme-broken", "edgevlm.engines", {"acme": "acme_engine:make_engine"}, acme_engine=code)
    with pytest.raises(ProviderError, match=r"^the package acme-broken cannot be loaded: .*: mend or uninstall it$"):
        make_engine(RuntimeOptions(engine="acme"))


def test_a_name_in_two_packages_is_refused(install: Install) -> None:
    for package in ("acme", "zenith"):
        install(package, "edgevlm.engines", {"fast": f"{package}_engine:make_engine"}, **{f"{package}_engine": ENGINE})
    with pytest.raises(ProviderError, match=r"packages have fast for edgevlm\.engines: acme, zenith: uninstall"):
        ENGINES.get("fast")


def test_unknown_names_are_told_all_that_there_are(install: Install) -> None:
    install("acme", "edgevlm.image_kinds", {"acme": "acme_kind"}, acme_kind=KIND)
    ours = ", ".join(KINDS.built_in)
    with pytest.raises(BundleError, match=f"in the bundle: round: known are {ours}, acme: upgrade"):
        KINDS.get("round")


def test_a_device_does_not_read_the_metadata_of_all_packages(handmade_bundle: Path) -> None:
    code = f"""
import importlib.metadata, edgevlm_runtime
def refuse(**_): raise SystemExit(3)
importlib.metadata.entry_points = refuse
edgevlm_runtime.load({str(handmade_bundle)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_registry_takes_things_as_they_are() -> None:
    made = Registry("unknown", {"one": 1, "join": "os.path:join"}, BundleError)
    assert (made.get("one"), made.get("join")) == (1, os.path.join)
    assert list(made) == ["one", "join"]
    assert "two" not in made
