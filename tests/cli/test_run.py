"""`edgevlm run` on a real bundle: the contract of its JSON, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import edgevlm
from edgevlm_runtime.bundle.manifest import decode, encode
from tests.support import records

QUESTION = "Is there a scratch?"
KEYS = [
    "prompt",
    "text",
    "token_ids",
    "finish_reason",
    "choice",
    "probabilities",
    "choices_mass",
    "timings_ms",
    "prompt_tokens",
    "image_tokens",
    "image_cache",
    "prefix_tokens_reused",
]
TIMINGS = ["preprocess", "vision", "projector", "prefill", "decode_per_token", "time_to_first_token", "total"]


@pytest.fixture
def ask(invoke, tiny_bundle, picture):
    """Run with a picture and a short answer; gives the answers of the JSON object."""

    def run(*arguments, image=picture):
        images = ["--image", image] if image else []
        result = invoke("run", tiny_bundle, *images, "--max-new-tokens", 8, "--json", *arguments)
        assert result.exit_code == 0, result.stderr
        printed = json.loads(result.stdout)
        records.check("run", printed)
        return printed["answers"]

    return run


def test_json(ask):
    (answer,) = ask("--prompt", QUESTION)
    assert list(answer) == KEYS
    assert list(answer["timings_ms"]) == TIMINGS
    assert answer["prompt"] == QUESTION
    assert 1 <= len(answer["token_ids"]) <= 8
    assert answer["finish_reason"] in ("stop", "length")
    assert 0 < answer["image_tokens"] < answer["prompt_tokens"]
    assert answer["image_cache"] == "miss"
    assert answer["prefix_tokens_reused"] == 7  # "<s>USER: ", which the bundle begins with


def test_answers_are_the_python_interfaces(ask, tiny_bundle, picture):
    questions = [QUESTION, "Describe it."]
    answers = ask(*(part for question in questions for part in ("--prompt", question)))
    with edgevlm.load(tiny_bundle).session(picture) as session:
        expected = [session.ask(question, max_new_tokens=8) for question in questions]
    assert [answer["token_ids"] for answer in answers] == [list(answer.token_ids) for answer in expected]
    assert [answer["text"] for answer in answers] == [answer.text for answer in expected]


def test_a_second_question_reuses_the_image(ask):
    first, second = ask("--prompt", QUESTION, "--prompt", "Describe it.")
    assert second["image_cache"] == "hit"
    assert second["prefix_tokens_reused"] >= first["image_tokens"]
    assert second["timings_ms"]["vision"] == 0


def test_chat_remembers(ask):
    prompts = ("--prompt", QUESTION, "--prompt", "Describe it.")
    alone, chatting = ask(*prompts)[1], ask(*prompts, "--chat")[1]
    assert chatting["prompt_tokens"] > alone["prompt_tokens"]


def test_two_images(ask, picture):
    one, two = ask("--prompt", QUESTION)[0], ask("--prompt", QUESTION, "--image", picture)[0]
    assert two["image_tokens"] == 2 * one["image_tokens"]


def test_no_image(ask):
    (answer,) = ask("--prompt", QUESTION, image=None)
    assert answer["image_tokens"] == 0
    assert answer["image_cache"] == "none"


def test_sampling_is_reproducible(ask):
    sampling = ("--prompt", QUESTION, "--temperature", 5, "--top-k", 50, "--top-p", 0.99, "--repetition-penalty", 1.1)
    first, again = (ask(*sampling, "--seed", 7)[0]["token_ids"] for _ in range(2))
    others = [ask(*sampling, "--seed", seed)[0]["token_ids"] for seed in (1, 2, 3)]
    assert first == again
    assert any(other != first for other in others)


def test_stop_ends_the_answer(ask):
    (whole,) = ask("--prompt", QUESTION)
    middle = whole["text"][len(whole["text"]) // 2]
    (stopped,) = ask("--prompt", QUESTION, "--stop", middle)
    assert stopped["finish_reason"] == "stop_string"
    assert stopped["text"] == whole["text"].partition(middle)[0]


def test_control_tokens_can_be_typed_as_letters(invoke, refused, tiny_bundle, ask):
    typed = f"{QUESTION} <image></s>"
    (plain,), (literal,) = ask("--prompt", QUESTION), ask("--prompt", typed, "--text-tokens", "literal")
    assert literal["prompt_tokens"] > plain["prompt_tokens"] + 4, "one token each, and one for the space"
    assert literal["image_tokens"] == plain["image_tokens"]
    line = refused(invoke("run", tiny_bundle, "--prompt", typed, "--text-tokens", "special"))
    assert "message 1 contains '<image>'" in line


def test_image_cache_outlives_the_process(ask, tmp_path):
    cache = tmp_path / "cache"
    (first,) = ask("--prompt", QUESTION, "--image-cache", cache)
    (second,) = ask("--prompt", QUESTION, "--image-cache", cache)
    assert [first["image_cache"], second["image_cache"]] == ["miss", "hit"]
    assert second["token_ids"] == first["token_ids"]


def test_contexts_outlive_the_process(ask, tmp_path):
    cache = tmp_path / "cache"
    (first,) = ask("--prompt", QUESTION, "--context-cache", cache)
    (second,) = ask("--prompt", QUESTION, "--context-cache", cache)
    assert second["prefix_tokens_reused"] == second["prompt_tokens"] - 1
    assert [first["image_cache"], second["image_cache"]] == ["miss", "hit"]
    assert second["token_ids"] == first["token_ids"]


def test_lookup_changes_no_answer(ask):
    (plain,) = ask("--prompt", QUESTION, "--max-new-tokens", "60", "--no-lookup")
    (looking,) = ask("--prompt", QUESTION, "--max-new-tokens", "60", "--lookup")
    assert looking["token_ids"] == plain["token_ids"]


def test_text_streamed_or_not_is_the_same(invoke, ask, tiny_bundle, picture):
    common = ("run", tiny_bundle, "--image", picture, "--prompt", QUESTION, "--max-new-tokens", 8)
    streamed, whole = invoke(*common), invoke(*common, "--no-stream")
    assert streamed.stdout == whole.stdout == ask("--prompt", QUESTION)[0]["text"] + "\n"
    assert streamed.stderr == whole.stderr == ""


def test_timings_go_to_stderr(invoke, tiny_bundle):
    common = ("run", tiny_bundle, "--prompt", QUESTION, "--max-new-tokens", 2)
    plain, timed = invoke(*common), invoke(*common, "--timings")
    assert timed.stdout == plain.stdout
    assert "time to first token" in timed.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--max-new-tokens", "0"], "--max-new-tokens"),
        (["--temperature", "-1"], "--temperature"),
        (["--temperature", "nan"], "--temperature"),
        (["--top-p", "1.5"], "--top-p"),
        (["--top-k", "-3"], "--top-k"),
        (["--repetition-penalty", "0"], "--repetition-penalty"),
        (["--seed", "-1"], "--seed"),
        (["--stop", ""], "stop"),
        (["--stop", "no</s>"], "stop string 'no</s>' holds the special token '</s>'"),
        (["--text-tokens", "maybe"], "--text-tokens"),
        (["--threads", "0"], "--threads"),
        (["--provider", "abacus"], "abacus"),
        (["--max-context", "0"], "--max-context"),
        (["--image", "nowhere.png"], "nowhere.png"),
    ],
)
def test_bad_options(invoke, refused, tiny_bundle, arguments, named):
    assert named in refused(invoke("run", tiny_bundle, "--prompt", "x", *arguments))


def test_a_provider_that_is_not_there(invoke, refused, tiny_bundle):
    assert "DmlExecutionProvider" in refused(invoke("run", tiny_bundle, "--prompt", "x", "--provider", "dml"))


def test_no_bundle(spawn, refused, tmp_path):
    assert "nowhere" in refused(spawn("run", tmp_path / "nowhere", "--prompt", "x"))


def test_a_text_file_as_image(spawn, refused, tiny_bundle, tmp_path):
    path = tmp_path / "note.png"
    path.write_text("this is no image")
    assert "note.png" in refused(spawn("run", tiny_bundle, "--image", path, "--prompt", "x"))


def test_a_decompression_bomb(spawn, refused, tiny_bundle, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(60_000, 60_000))
    assert "bomb.png" in refused(spawn("run", tiny_bundle, "--image", path, "--prompt", "x"))


def test_a_prompt_longer_than_the_context(spawn, refused, tiny_bundle):
    assert "context" in refused(spawn("run", tiny_bundle, "--prompt", "scratch " * 10_000))


def test_more_images_than_the_context_holds(spawn, refused, tiny_bundle, picture):
    images = [part for _ in range(600) for part in ("--image", picture)]
    assert "600 images" in refused(spawn("run", tiny_bundle, *images, "--prompt", "x"))


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_is_one_line(tiny_bundle):
    # A shell that runs this in the background may have switched SIGINT off, and children inherit that.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import edgevlm.cli as c; c.main()"
    prompts = [part for _ in range(2000) for part in ("--prompt", QUESTION)]
    command = [sys.executable, "-c", code, "run", str(tiny_bundle), "--timings", "--max-new-tokens", "4", *prompts]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[ms]"):
            break
    else:
        pytest.fail("no question was answered")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "Interrupted."
    assert "Traceback" not in rest


def png_of(width: int, height: int) -> bytes:
    """A PNG file that claims this size; there is hardly any data in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.fixture
def photo(picture):
    """The picture as a phone stores it when held upright: on its side, with a tag that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = picture.with_name("phone.png")
    Image.open(picture).rotate(90, expand=True).save(file, exif=exif)
    return file


def test_a_phones_photo_is_seen_upright(ask, invoke, tiny_bundle, picture, photo):
    def tokens(image, *arguments):
        return [answer["token_ids"] for answer in ask("-p", QUESTION, "-p", "describe", *arguments, image=image)]

    lying = picture.with_name("lying.png")
    Image.open(picture).rotate(90, expand=True).save(lying)
    assert tokens(photo) == tokens(photo, "--exif-orientation") == tokens(picture)
    assert tokens(photo, "--no-exif-orientation") == tokens(lying)


def test_what_was_done_to_a_picture_is_said_once(spawn, tiny_bundle, photo):
    done = spawn("run", tiny_bundle, "-i", photo, "-i", photo, "-p", QUESTION, "--max-new-tokens", 1)
    assert done.returncode == 0
    assert done.stderr.count("phone.png: turned upright, as its EXIF orientation (6) says") == 1


def test_the_depth_of_a_picture(ask, invoke, refused, tiny_bundle, picture, tmp_path):
    grey = np.asarray(Image.open(picture).convert("L"))
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(np.rint(grey * (4095 / 255)).astype(np.uint16)).save(tmp_path / "12.png")
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "float.tif")
    expected = ask("-p", QUESTION, image=tmp_path / "8.png")[0]["token_ids"]
    assert ask("-p", QUESTION, "--image-depth", 12, image=tmp_path / "12.png")[0]["token_ids"] == expected
    assert ask("-p", QUESTION, "--image-depth", 8, image=tmp_path / "float.tif")[0]["token_ids"] == expected
    line = refused(invoke("run", tiny_bundle, "-i", tmp_path / "float.tif", "-p", QUESTION))
    assert "nothing says which is white" in line
    assert "--image-depth" in line
    assert "32" in refused(invoke("run", tiny_bundle, "-i", picture, "-p", QUESTION, "--image-depth", 33))


@pytest.mark.parametrize(
    ("arguments", "reason", "says"),
    [
        ((), "length", "cut at 5 tokens, the bundle's default: ask for more with --max-new-tokens"),
        (("--max-new-tokens", 5), "length", None),
        (("--max-new-tokens", 500, "--max-context", 30), "length", "tokens: prompt and answer fill the context"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--no-stream",), ("--json",)])
def test_an_answer_that_is_cut_shows_it(invoke, short_bundle, picture, arguments, reason, says, form):
    result = invoke("run", short_bundle, "-i", picture, "-p", "is there a scratch", *arguments, *form)
    assert result.exit_code == 0, result.stderr
    assert ("was cut" in result.stderr) == (says is not None)
    assert says is None or says in result.stderr
    if "--json" in form:
        assert json.loads(result.stdout)["answers"][0]["finish_reason"] == reason


@pytest.fixture(scope="module")
def short_bundle(tiny_bundle, tmp_path_factory):
    """A bundle whose answers have 5 tokens unless more are asked for, and no end."""
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("short") / "bundle")
    manifest = decode((folder / "manifest.json").read_bytes(), "here")
    generation = replace(manifest.generation, max_new_tokens=5, eos_token_ids=())
    data = encode(replace(manifest, generation=generation))
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  manifest.json\n")
    return folder
