"""Write a Triton model repository: `DIR/NAME/config.pbtxt`, `DIR/NAME/1/model.py` and `DIR/NAME/1/bundle/`."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.reading import why
from edgevlm_runtime.saving import check_folder

MODEL = Path(__file__).with_name("model.py")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

INPUTS = (
    ("image", "TYPE_STRING", -1, True),
    ("question", "TYPE_STRING", 1, False),
    ("system", "TYPE_STRING", 1, True),
    ("choices", "TYPE_STRING", -1, True),
    ("schema", "TYPE_STRING", 1, True),
    ("max_new_tokens", "TYPE_INT32", 1, True),
)
"""Name, type, elements (-1: any number), and whether a request may leave it out."""
OUTPUTS = (("text", "TYPE_STRING", 1), ("finish_reason", "TYPE_STRING", 1), ("probabilities", "TYPE_FP64", -1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryOptions:
    """What is written. Raises `EdgeVLMError` for a name that Triton would not take."""

    bundle: Path
    folder: Path
    name: str
    """Of the model in Triton."""
    instances: int = 1
    """Copies of the model, each with a process and the bundle's memory of its own."""
    loading: dict[str, Any] = field(default_factory=dict)
    """Arguments of `edgevlm_runtime.load`."""
    force: bool = False

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise EdgeVLMError(f"no name for a model: {self.name!r}: letters, digits, '.', '_' and '-' are allowed")


def write_repository(options: RepositoryOptions) -> Path:
    """Returns the model's folder. Raises `BundleError` for what is no whole bundle, `EdgeVLMError` for the place."""
    from edgevlm_runtime.bundle.folder import Bundle

    bundle = Bundle.open(options.bundle)
    model = options.folder / options.name
    if model.resolve().is_relative_to(options.bundle.resolve()):
        raise EdgeVLMError(f"the repository would be in the bundle: {model}: choose another folder")
    check_folder(model, options.force)
    version = model / "1"
    try:
        version.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(version / "bundle", ignore_errors=True)
        for name in ("manifest.json", "manifest.sha256", *bundle.manifest.files):
            if (source := options.bundle / name).exists():
                target = version / "bundle" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        shutil.copyfile(MODEL, version / "model.py")
        (model / "config.pbtxt").write_text(config(options), encoding="utf-8")
    except OSError as error:
        raise EdgeVLMError(f"cannot write {model}: {why(error)}: choose another folder") from error
    return model


def config(options: RepositoryOptions) -> str:
    """The model's configuration, as Triton's text format has it."""
    inputs = [
        f'  {{ name: "{name}" data_type: {kind} dims: [ {size} ]{" optional: true" if optional else ""} }}'
        for name, kind, size, optional in INPUTS
    ]
    outputs = [f'  {{ name: "{name}" data_type: {kind} dims: [ {size} ] }}' for name, kind, size in OUTPUTS]
    # the text format quotes as JSON does, for what stands here
    parameters = [
        f"parameters {{ key: {json.dumps(name)} value: {{ string_value: {json.dumps(str(value))} }} }}"
        for name, value in sorted(options.loading.items())
    ]
    return "\n".join(
        (
            f'name: "{options.name}"',
            'backend: "python"',
            "max_batch_size: 0",
            "model_transaction_policy { decoupled: true }",
            "input [",
            ",\n".join(inputs),
            "]",
            "output [",
            ",\n".join(outputs),
            "]",
            f"instance_group [ {{ kind: KIND_CPU count: {options.instances} }} ]",
            *parameters,
            "",
        )
    )
