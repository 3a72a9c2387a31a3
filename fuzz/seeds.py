"""Writes `fuzz/corpus/`: small valid inputs of every target, as the project's own tests make them."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzz.targets import HERE, image
from fuzz.targets.safetensors import head
from tests.support import checkpoints
from tests.support.pictures import png_with_chunk, tiff

CORPUS = HERE / "corpus"
TEMPLATES = Path("tests/runtime/text/chat_templates")
COMMANDS = (
    ["run", "@BUNDLE", "-i", "@IMAGE", "-p", "what is this?", "--max-new-tokens", "2", "--json"],
    [
        "run",
        "@BUNDLE",
        "-i",
        "@IMAGE",
        "-p",
        "a",
        "-p",
        "b",
        "--chat",
        "--temperature",
        "0.7",
        "--top-k",
        "3",
        "--seed",
        "1",
    ],
    ["run", "@BUNDLE", "-i", "@IMAGE", "-p", "a", "--choices", "yes,no", "--abstain-below", "0.9", "--json"],
    ["run", "@BUNDLE", "-p", "a", "--max-context", "64", "--image-cache", "@FOLDER", "--stop", "x", "--timings"],
    ["run", "@BUNDLE", "-i", "@IMAGE", "-p", "a", "--image-depth", "12", "--no-exif-orientation", "--threads", "1"],
    ["verify", "@BUNDLE", "--json"],
    ["inspect", "@BUNDLE", "--json"],
    ["models", "--json"],
    ["eval", "@BUNDLE", "--dataset", "@FOLDER", "--n", "1", "--json"],
    ["export", "@MISSING", "--int8", "-o", "@FILE"],
    ["compile", "@MISSING"],
    ["bench", "@MISSING", "--repeats", "1", "--compare", "@FILE", "--tolerance", "0.1"],
    ["--help"],
    ["run", "--help"],
)
PROMPTS: tuple[dict[str, Any], ...] = (
    {"question": "Is there a scratch?", "system": "be brief", "choices": ["yes", "no"], "turns": ["where?"]},
    {"question": "<|im_end|><s></s><image>", "system": "", "choices": [" ", "no", "no"], "turns": []},
    {
        "question": "caf\u00e9 \U0001f600 \u202e",
        "system": None,
        "choices": [],
        "options": {"stop": ["a"], "temperature": 0.5, "seed": 1},
    },
    {"question": "x" * 300, "options": {"repetition_penalty": 1.2, "top_k": 3, "top_p": 0.5, "max_new_tokens": 2}},
)


def pictures() -> dict[str, bytes]:
    """One of each format and of each depth, a few hundred bytes long."""
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8))
    grey = np.asarray(rgb.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {"rgb.png": _saved(rgb, "PNG"), "phone.jpg": _saved(rgb, "JPEG", exif=exif)}
    for format_ in ("WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"):
        made[f"rgb.{format_.lower()}"] = _saved(rgb, format_)
    made["lzw.tif"] = _saved(rgb, "TIFF", compression="tiff_lzw", exif=exif)
    made["palette.png"] = _saved(rgb.quantize(8), "PNG", transparency=3)
    made["alpha.png"] = _saved(Image.merge("LA", [rgb.convert("L")] * 2), "PNG")
    made["cmyk.jpg"] = _saved(rgb.convert("CMYK"), "JPEG")
    made["frames.gif"] = _saved(rgb.quantize(8), "GIF", save_all=True, append_images=[rgb.rotate(180).quantize(8)])
    made["16.png"] = png_with_chunk(Image.fromarray(grey.astype(np.uint16) * 257), b"sBIT", b"\x0c")
    made["12.tif"] = tiff(grey.astype(np.uint16) * 16, endian=">", tags={281: 4095, 274: 8})
    made["float.tif"] = tiff((grey / 255).astype(np.float32), tags={340: 0.0, 341: 1.0})
    made["signed.tif"] = tiff((grey.astype(np.int16) - 128) * 256)
    made["colour16.tif"] = tiff(np.asarray(rgb).astype(np.uint16) * 257)
    made["12.pgm"] = b"P5 # c\n13 9\n4095\n" + (grey.astype(">u2") * 16).tobytes()
    return made


def configs(folder: Path) -> dict[str, bytes]:
    """The JSON files of each family's tiny checkpoint, the tokenizer's apart."""
    made = {}
    for family, make in {
        "llava": checkpoints.llava,
        "smolvlm": checkpoints.smolvlm,
        "qwen2_5_vl": checkpoints.qwen2_5_vl,
    }.items():
        path = make(folder / family)
        files = {
            file.name: json.loads(file.read_bytes())
            for file in sorted(path.glob("*.json"))
            if file.name != "tokenizer.json"
        }
        made[f"{family}.json"] = json.dumps({"family": family, "files": files}, indent=1).encode()
    return made


def manifests(tiny: bytes) -> dict[str, bytes]:
    """The hand-made bundle's, with each kind of image processing."""
    made = {"tiny.json": tiny}
    for kind, options in image.KINDS.items():
        document = json.loads(tiny)
        document["image"] = {"kind": kind, "options": options, "exif_orientation": True}
        made[f"{kind}.json"] = json.dumps(document, indent=1).encode()
    return made


def write(target: str, files: dict[str, bytes]) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def main() -> None:
    write("image", pictures())  # first: other targets show one of them
    from tests.runtime.conftest import make_bundle

    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder) / "bundle")
        write("manifest", manifests((bundle / "manifest.json").read_bytes()))
        tokenizer = checkpoints.llava(Path(folder) / "llava") / "tokenizer.json"
        write(
            "tokenizer", {"bytes.json": (bundle / "tokenizer.json").read_bytes(), "words.json": tokenizer.read_bytes()}
        )
        write("safetensors", {"tiny": head((tokenizer.parent / "model.safetensors").read_bytes())})
        write("config", configs(Path(folder)))
    write("template", {file.name: file.read_bytes() for file in sorted(TEMPLATES.glob("*.jinja"))})
    write("prompt", {f"{number}.json": json.dumps(prompt).encode() for number, prompt in enumerate(PROMPTS)})
    write("cli", {f"{number:02}.json": json.dumps(words).encode() for number, words in enumerate(COMMANDS)})


def _saved(image: Image.Image, format_: str, **parameters: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **parameters)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
