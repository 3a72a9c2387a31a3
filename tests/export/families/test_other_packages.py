"""A family of another package: the example in `examples/company_family`, installed as its users would."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import edgevlm_runtime
from edgevlm.cli import cli
from edgevlm_export.api import ExportOptions, export
from edgevlm_export.families import FAMILIES, get_family
from edgevlm_export.reference import Reference
from edgevlm_runtime.errors import UnsupportedModel
from tests.support import checkpoints
from tests.support.checkpoints.weights import save
from tests.support.packages import installed

EXAMPLE = Path(__file__).parents[3] / "examples" / "company_family"


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The example, installed in a folder of its own."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(site), str(EXAMPLE)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield


def checkpoint(folder: Path) -> Path:
    """A checkpoint of the company's model: a tiny LLaVA's files, and weights with the company's projector."""
    from acme_family import AcmeConfig

    checkpoints.llava(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return save(folder, AcmeConfig.from_dict({**config, "model_type": "acme_vlm"}), seed=1, gain=1.3)


@pytest.mark.usefixtures("company")
def test_company_model_answers_like_transformers(tmp_path, export_bundle):
    folder = checkpoint(tmp_path / "acme")
    vlm, reference = edgevlm_runtime.load(export_bundle(folder)), Reference.load(str(folder))
    assert vlm.manifest.model.family == "acme_vlm"
    assert type(reference.model).__name__ == "AcmeModel"
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    answers = set()
    for images in ([picture], []):
        with vlm.session(*images) as session:
            answer = session.ask("what is in the picture", max_new_tokens=16)
        expected = reference.answer("what is in the picture", images, max_new_tokens=16)
        assert answer.token_ids == expected.token_ids
        answers.add(answer.token_ids)
    assert len(answers) == 2


@pytest.mark.usefixtures("company")
def test_company_family_is_listed():
    assert list(FAMILIES)[-1] == "acme_vlm"
    assert json.loads(CliRunner().invoke(cli, ["models", "--json"]).stdout)["families"][-1] == "acme_vlm"
    with pytest.raises(UnsupportedModel, match=r"blip-2: known are llava, .*, acme_vlm"):
        get_family("blip-2")


@pytest.mark.parametrize("known", [True, False])
def test_package_that_breaks_is_named(tmp_path, monkeypatch, known):
    """Whether or not transformers knows the model type; never when it is one of ours."""
    kind = "blip-2" if known else "broken_vlm"
    points = {kind: "broken_family:FAMILY", "llava": "broken_family:FAMILY"}
    site = installed(tmp_path / "site", "broken", "edgevlm.families", points, broken_family="import nowhere")
    monkeypatch.syspath_prepend(site)
    assert get_family("llava").__module__ == "edgevlm_export.families.llavas.llava"
    checkpoints.llava(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "model_type": kind}), "utf-8")
    with pytest.raises(UnsupportedModel, match="the package broken cannot be loaded: No module named 'nowhere'"):
        export(ExportOptions(str(tmp_path / "model"), tmp_path / "bundle"))
