"""Which checkpoint a bundle came from: the digest tells another one, and nothing but another one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText

from edgevlm_export.checkpoints.fingerprint import COVERS, SAMPLE, fingerprint, other_checkpoint
from edgevlm_runtime.bundle.folder import Bundle, file_sha256
from edgevlm_runtime.bundle.manifest import CheckpointDigest
from edgevlm_runtime.errors import CheckpointError
from tests.support import checkpoints


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_bundle_knows_its_checkpoint(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    assert manifest.model.checkpoint == fingerprint(tiny_checkpoint)
    assert manifest.model.checkpoint.covers == COVERS
    assert other_checkpoint(manifest, tiny_checkpoint) is None


def test_other_weights_of_the_same_shape_are_another_checkpoint(tiny_bundle: Path, copy: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(copy)
    checkpoints.randomize(model, seed=3)
    model.save_pretrained(copy)
    line = other_checkpoint(Bundle.open(tiny_bundle).manifest, copy)
    assert line == (
        f"{copy} is not the checkpoint that this bundle was made from (tiny-llava): config or weights are others"
    )


def test_one_changed_sample_or_setting_is_enough(copy: Path) -> None:
    """The last bytes of the file are the end of its last tensor."""
    before = fingerprint(copy)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    changed = fingerprint(copy)
    edit_config(copy, image_token_index=5)
    assert len({before.sha256, changed.sha256, fingerprint(copy).sha256}) == 3


def test_shards_and_who_wrote_the_config_do_not_matter(tiny_checkpoint: Path, copy: Path) -> None:
    edit_config(copy, transformers_version="4.0.0", _name_or_path="somewhere")
    assert fingerprint(copy) == fingerprint(tiny_checkpoint)
    config = (copy / "config.json").read_bytes()
    model = AutoModelForImageTextToText.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="100KB")
    (copy / "config.json").write_bytes(config)
    assert len(list(copy.glob("*.safetensors"))) > 1
    assert fingerprint(copy) == fingerprint(tiny_checkpoint)


def test_nobody_can_tell_for_a_bundle_without_a_digest(tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    for stored in (None, CheckpointDigest("0" * 64, "something else")):
        older = dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, checkpoint=stored))
        assert other_checkpoint(older, tmp_path) is None


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"unreadable config: .*config\.json"):
        fingerprint(tmp_path)


def test_a_files_digest_is_hashlibs(tmp_path: Path) -> None:
    data = bytes(range(256)) * (3 * SAMPLE)
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
