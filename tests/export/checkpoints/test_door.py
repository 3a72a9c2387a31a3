"""Everything of a checkpoint comes through one door, and none of a checkpoint's code ever runs."""

from __future__ import annotations

import ast
import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgevlm_export.checkpoints import checkpoint
from edgevlm_export.joint_processor import load_joint_processor
from edgevlm_export.reference import Reference
from edgevlm_runtime.errors import EdgeVLMError

EXPORT = Path(__file__).parents[3] / "export/edgevlm_export"
PRODUCT = Path(__file__).parents[3] / "edgevlm"
DOOR = EXPORT / "checkpoints/door.py"
LOADERS = {
    "from_pretrained",
    "from_config",
    "get_processor_dict",
    "get_image_processor_dict",
    "get_class_from_dynamic_module",
    "from_file",
}
"""Methods, of whatever class."""
FUNCTIONS = {
    "torch": {"load"},
    "safetensors": {"safe_open"},
    "safetensors.torch": {"load_file", "load", "load_model"},
    "pickle": {"load", "loads", "Unpickler"},
    "numpy": {"load"},
}


def names(tree: ast.Module) -> dict[str, str]:
    """Local name to the dotted name that was imported."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                (one.asname or one.name.split(".")[0]): (one.asname and one.name) or one.name.split(".")[0]
                for one in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {(one.asname or one.name): f"{node.module}.{one.name}" for one in node.names}
    return found


def dotted(node: ast.expr, imported: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, imported)}.{node.attr}"
    return imported.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def loader_calls(source: str) -> Iterator[str]:
    """Every use of a loader, called or handed on."""
    tree = ast.parse(source)
    imported = names(tree)
    forbidden = {f"{module}.{name}" for module, known in FUNCTIONS.items() for name in known}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute | ast.Name):
            continue
        name = dotted(node, imported)
        if name in forbidden or ("." in name and name.rpartition(".")[2] in LOADERS):
            yield f"{node.lineno}: {name}"


def test_nothing_is_loaded_but_through_the_door():
    others = [path for folder in (EXPORT, PRODUCT) for path in folder.rglob("*.py") if path != DOOR]
    found = {str(path.name): list(loader_calls(path.read_text(encoding="utf-8"))) for path in others}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from transformers import AutoConfig\nAutoConfig.from_pretrained(x)",
        "import transformers as t\nt.AutoModel.from_config(c)",
        "import torch\nload = torch.load",
        "from torch import load as read\nread(f)",
        "from safetensors import safe_open\nwith safe_open(f, framework='pt'): pass",
        "import safetensors.torch as s\ns.load_file(f)",
        "import safetensors.torch\nsafetensors.torch.load_file(f)",
    ],
)
def test_the_list_sees_every_way_to_call_a_loader(source):
    assert list(loader_calls(source))


def keywords(call: ast.Call, tree: ast.Module) -> set[str]:
    """Names of a call's keywords, those of a dictionary of the module included."""
    tables = {
        target.id: {str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)}
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    spread = [one.value.id for one in call.keywords if one.arg is None and isinstance(one.value, ast.Name)]
    return {one.arg for one in call.keywords if one.arg}.union(*(tables.get(name, set()) for name in spread))


def test_the_door_says_no_to_code_and_network_in_every_call():
    tree = ast.parse(DOOR.read_text(encoding="utf-8"))
    calls = [one for one in ast.walk(tree) if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute)]
    loaders = {ast.unparse(one.func): keywords(one, tree) for one in calls if one.func.attr in LOADERS}  # type: ignore[attr-defined]
    assert len(loaders) >= 7
    local = {name for name in loaders if not name.endswith("from_config")}
    assert [name for name in local if "local_files_only" not in loaders[name]] == []
    plain = {
        "GenerationConfig.from_pretrained",
        "ProcessorMixin.get_processor_dict",
        "BaseImageProcessor.get_image_processor_dict",
    }  # read JSON, whatever is in it
    assert [name for name in loaders.keys() - plain if "trust_remote_code" not in loaders[name]] == []
    unpickling = [one for one in calls if ast.unparse(one.func) == "torch.load" or "Model" in ast.unparse(one.func)]
    weights = [one for one in unpickling if one.func.attr != "from_config"]  # type: ignore[attr-defined]
    assert [ast.unparse(one) for one in weights if "weights_only" not in keywords(one, tree)] == []


EVIL = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from transformers import *
class Evil(PreTrainedConfig): model_type = "evil"
class EvilModel(PreTrainedModel): pass
class EvilTokenizer(PreTrainedTokenizerFast): pass
class EvilImages(ImageProcessingMixin): pass
class EvilProcessor(ProcessorMixin): pass
def generate(*_, **__): pass
"""
MAP = {
    "AutoConfig": "evil.Evil",
    "AutoModel": "evil.EvilModel",
    "AutoModelForImageTextToText": "evil.EvilModel",
    "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"],
    "AutoImageProcessor": "evil.EvilImages",
    "AutoProcessor": "evil.EvilProcessor",
}


@pytest.fixture
def evil(tmp_path, tiny_checkpoint, monkeypatch) -> Path:
    """A checkpoint with code of its own in every place where transformers looks; somebody says yes to everything."""
    folder = tmp_path / "evil"
    shutil.copytree(tiny_checkpoint, folder)
    code = EVIL.format(mark=str(tmp_path / "ran"))
    (folder / "evil.py").write_text(code, encoding="utf-8")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate/generate.py").write_text(code, encoding="utf-8")
    for name in ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        file = folder / name
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        if content is not None:
            file.write_text(json.dumps({**content, "auto_map": MAP}), encoding="utf-8")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n" * 1000))
    return folder


def test_a_known_model_with_code_of_its_own_is_loaded_without_it(evil, tmp_path):
    config = checkpoint.load_config(evil)
    assert load_joint_processor(evil, config) is not None
    reference = Reference.load(str(evil))
    assert reference.answer("What is this?", max_new_tokens=2).token_ids
    assert type(reference.model).__module__.startswith("transformers.")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_model_with_code_of_its_own_is_refused_in_one_line(evil, tmp_path):
    file = evil / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "evil"}), encoding="utf-8")
    with pytest.raises(EdgeVLMError, match=r"evil.*own code is never run") as caught:
        checkpoint.load_config(evil)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["attn_implementation", "experts_implementation"])
def test_kernels_of_the_hub_are_not_fetched(tiny_checkpoint, tmp_path, key):
    content = json.loads((tiny_checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, key: "somebody/kernels"}), encoding="utf-8")
    with pytest.raises(EdgeVLMError, match=f"{key} is code on the hub: somebody/kernels"):
        checkpoint.load_config(tmp_path)
