"""llama.cpp, built for this processor from the source package of llama-cpp-python; its own tools do the measuring.

`llama-bench` gives prefill and decoding (after a warm-up of its own), `llama-mtmd-cli` the vision encoder and the time
to first token of a whole question. Both load the model anew at every turn.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.base import SECOND_QUESTION, Measures, PeerError, Room, Task, Variant
from benchmarks.peers.tools import build_jobs, make_environment, module, output_of, run

NAME = "llama.cpp"
PACKAGE = "llama-cpp-python"
REQUIREMENTS = ("torch<2.14", "transformers", "sentencepiece", "protobuf", "safetensors", "pyyaml", "requests", "tqdm")
BUILD_REQUIREMENTS = ("scikit-build-core", "cmake", "ninja")
TARGETS = ("llama-bench", "llama-mtmd-cli", "llama-quantize", "llama-server")
CMAKE_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "GGML_NATIVE": "ON",  # -march=native: AVX512-VNNI, AMX and others where the compiler finds them
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # its page would be downloaded
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_OPENSSL": "OFF",
}
NO_OPTIONS: Mapping[str, str] = {}
AVX2 = {"GGML_NATIVE": "OFF"}
"""What there is to be told for a processor with AVX2, FMA and F16C: they are its choice where it does not look."""
# GCC before 13 believes that `_tile_loadconfig` reads eight bytes, and drops what was written into the other 56: every
# product in AMX then faults. The barrier makes it keep them; the code that runs is otherwise llama.cpp's own.
_AMX_SOURCE = Path("ggml/src/ggml-cpu/amx/mmq.cpp")
_AMX_LOAD = "    _tile_loadconfig(&tc);"
_AMX_BARRIER = '    __asm__ __volatile__("" : : "r"(&tc) : "memory");'
PLAIN = (
    "{% for message in messages %}{{ message['role'] | upper }}: {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""A template whose contents are strings: the server then puts pictures into them itself. It makes the words that shapes
have in their own."""
CONTEXT = 8192
"""Tokens of all the server's slots together."""
_BLANKS = {SECOND_QUESTION: "llama-mtmd-cli gives no time for a second question alone"}
_REMARK = (
    "first token: vision encoder and prompt, without the image's decoding; where it makes several images of one (of "
    "SmolVLM's single tile also an overview), vision is the mean of them and there is no first token to compare"
)
VARIANTS = (
    Variant("Q8_0", "Q8_0 decoder, F16 vision", _BLANKS, _REMARK),
    Variant("Q4_0", "Q4_0 decoder, F16 vision", _BLANKS, _REMARK),
)
_ENCODING = re.compile(r"encoding mtmd batch, n_chunks = (\d+)")
_ENCODED = re.compile(r"mtmd batch encoding done in (\d+) ms")
_DECODED = re.compile(r"image decoded \(batch \d+/\d+\) in (\d+) ms")
_PROMPT = re.compile(r"prompt eval time =\s*([\d.]+) ms /\s*(\d+) tokens")
_LOADED = re.compile(r"load time =\s*([\d.]+) ms")


def install(room: Room, more: Mapping[str, str] = NO_OPTIONS) -> dict[str, str]:
    """See `Peer`. Builds what is not built, with `more` options for CMake."""
    home = room.home(NAME)
    python = make_environment(room, NAME, REQUIREMENTS, ("torch", "transformers"))
    source = _source(room) or _unpack(room)
    _mend(source)
    if not all(_tool(room, tool).exists() for tool in TARGETS):
        options = [f"-D{name}={value}" for name, value in {**CMAKE_OPTIONS, **more}.items()]
        run(["cmake", "-S", source, "-B", home / "build", *options], home / "cmake.log")
        bound = ("--parallel", build_jobs())  # before --target, which takes every word that follows it
        run(["cmake", "--build", home / "build", *bound, "--target", *TARGETS], home / "build.log")
    return {PACKAGE: _package_version(source), "llama.cpp": _version(source), **python}


def convert(room: Room, variant: Variant) -> None:
    """See `Peer`. float16 first, which is kept for the other rows."""
    models = room.models(NAME)
    models.mkdir(parents=True, exist_ok=True)
    script = module(room.python(NAME), "benchmarks.peers.llama_convert", _source(room))
    for kind, origin, made in (
        ("text", room.decoder if room.decoder.is_dir() else room.checkpoint, models / "F16.gguf"),
        ("mmproj", room.checkpoint, models / "mmproj.gguf"),
    ):
        if not made.exists():
            partial = made.with_suffix(".partial.gguf")
            run([*script, kind, origin, partial], models / f"{kind}.log")
            partial.rename(made)
    made = models / f"{variant.name}.gguf"
    if not made.exists():
        partial = made.with_suffix(".partial.gguf")
        quantize = [_tool(room, "llama-quantize"), models / "F16.gguf", partial, variant.name]
        run(quantize, models / f"{variant.name}.log")
        partial.rename(made)


def model_files(room: Room, variant: Variant) -> list[Path]:
    """See `Peer`."""
    return [room.models(NAME) / f"{variant.name}.gguf", room.models(NAME) / "mmproj.gguf"]


def measure(room: Room, variant: Variant, task: Task) -> Measures:
    """See `Peer`. The memory is that of the whole question."""
    model, mmproj = model_files(room, variant)
    tokens, threads = len(task.first_ids), task.threads
    bench = (_tool(room, "llama-bench"), "-m", model, "-t", threads, "-r", 1, "-o", "json")
    prefill, _, _ = output_of((*bench, "-p", tokens, "-n", 0))
    decode, _, _ = output_of((*bench, "-p", 0, "-n", task.new_tokens, "-d", tokens))
    ask = ("--image", task.image, "-p", task.first, "-n", task.new_tokens, "-t", threads)
    greedy = ("--temp", 0, "--ignore-eos", "-lv", 4, "--chat-template", "vicuna", "-c", tokens + task.new_tokens + 512)
    command = (_tool(room, "llama-mtmd-cli"), "-m", model, "--mmproj", mmproj, *ask, *greedy)
    stdout, stderr, memory = output_of(command)
    vision, first, load = read_question(stdout + stderr)
    return Measures(
        vision_ms=vision,
        prefill_tokens_per_s=read_bench(prefill, "n_prompt"),
        decode_tokens_per_s=read_bench(decode, "n_gen"),
        time_to_first_token_ms=first,
        load_ms=load,
        peak_rss_mib=memory,
    )


def server_command(room: Room, variant: Variant, port: int, threads: int) -> list[object]:
    """How `llama-server` is started: as it is by default, but for threads and the room of several pictures."""
    model, mmproj = model_files(room, variant)
    files = ("-m", model, "--mmproj", mmproj, "--chat-template", PLAIN)
    return [_tool(room, "llama-server"), *files, "-t", threads, "-c", CONTEXT, "--port", port]


def read_bench(output: str, test: str) -> float:
    """Tokens a second of the row of `llama-bench -o json` that has a positive `test`. Raises `PeerError`."""
    try:
        rows: list[dict[str, Any]] = json.loads(output)
        row = next(row for row in rows if row[test] > 0)
        return float(row[test]) * 1e9 / float(row["avg_ns"])
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise PeerError(f"llama-bench printed no row with {test}: {output.strip()[-200:] or 'nothing'}") from error


def read_question(log: str) -> tuple[float, float | None, float]:
    """Vision, time to first token and loading in milliseconds, from what llama-mtmd-cli logs. Raises `PeerError`.

    Where it made several images of one, vision is one of them on average, and the time to first token None.
    """
    encoded, prompt, loaded = _ENCODED.findall(log), _PROMPT.search(log), _LOADED.search(log)
    images = sum(int(one) for one in _ENCODING.findall(log))
    if not encoded or not images or prompt is None or loaded is None:
        raise PeerError(f"llama-mtmd-cli logged no timings: {log.strip()[-200:] or 'nothing'}")
    vision, evaluated, load = sum(float(one) for one in encoded), float(prompt[1]), float(loaded[1])
    if images > 1:
        return vision / images, None, load
    # The prompt's clock starts at the text before the image and, unless something waited for that text's result, runs
    # on while the vision encoder works: then it is the time to first token by itself.
    decoded = sum(float(one) for one in _DECODED.findall(log))
    return vision, evaluated if evaluated >= vision + decoded else vision + evaluated, load


def _tool(room: Room, name: str) -> Path:
    return room.home(NAME) / "build" / "bin" / name


def _source(room: Room) -> Path | None:
    """llama.cpp's folder in the unpacked source package."""
    return next(iter(sorted(room.home(NAME).glob("llama_cpp_python-*/vendor/llama.cpp"))), None)


def _unpack(room: Room) -> Path:
    """Download the source package and unpack it. Only its build system runs, to tell its name."""
    home = room.home(NAME)
    pip = module(room.python(NAME), "pip")
    run((*pip, "install", "--quiet", *BUILD_REQUIREMENTS), home / "build-requirements.log")
    options = ("--no-binary", PACKAGE, "--no-deps", "--no-build-isolation", "--dest", home)
    run((*pip, "download", *options, PACKAGE), home / "download.log")
    with tarfile.open(next(home.glob("llama_cpp_python-*.tar.gz"))) as archive:
        archive.extractall(home, filter="data")
    source = _source(room)
    if source is None:
        raise PeerError(f"the source package of {PACKAGE} has no vendor/llama.cpp")
    return source


def _mend(source: Path) -> None:
    """Put the barrier in, once."""
    file = source / _AMX_SOURCE
    text = file.read_text(encoding="utf-8")
    if _AMX_BARRIER not in text:
        file.write_text(text.replace(_AMX_LOAD, f"{_AMX_BARRIER}\n{_AMX_LOAD}"), encoding="utf-8")


def _package_version(source: Path) -> str:
    return source.parents[1].name.rpartition("-")[2]


def _version(source: Path) -> str:
    """From its CMakeLists.txt: `set(LLAMA_VERSION_MAJOR 0)` and so on."""
    text = (source / "CMakeLists.txt").read_text(encoding="utf-8")
    numbers = re.findall(r"set\(LLAMA_VERSION_(?:MAJOR|MINOR|PATCH)\s+(\d+)\)", text)
    return ".".join(numbers) or "unknown"
