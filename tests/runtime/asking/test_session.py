"""Sessions: independent questions about the same images, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm_runtime import VLM, Answer
from edgevlm_runtime.engines.ort_library import ort
from edgevlm_runtime.errors import ContextOverflow, EdgeVLMError, ImageError, PromptError

Picture = Callable[[int], Image.Image]
Fresh = Callable[..., VLM]


def _same(one: Answer, other: Answer) -> bool:
    return (one.text, one.token_ids, one.finish_reason) == (other.text, other.token_ids, other.finish_reason)


@pytest.mark.parametrize("pictures", [(), (1,), (1, 2)])
def test_questions_are_independent(vlm: VLM, picture: Picture, pictures: tuple[int, ...]) -> None:
    """Asked one after another in one session, in any order, they get the answers they get alone."""
    images = [picture(number) for number in pictures]
    questions = ["hello", "what is it?", "hello there", "", "what is it?"]
    alone = {question: vlm.ask(images, question) for question in questions}
    with vlm.session(*images) as session:
        for number, question in enumerate(questions):
            answer = session.ask(question)
            assert _same(answer, alone[question])
            np.testing.assert_allclose(answer.logprobs, alone[question].logprobs, atol=1e-4)
            if number:
                shared = 2 + len(images) * 4  # beginning of sequence, role, images
                assert answer.prefix_tokens_reused >= shared
    assert len({answer.token_ids for answer in alone.values()}) == 4


def test_the_image_matters(vlm: VLM, picture: Picture) -> None:
    answers = {vlm.ask(picture(number), "hello").token_ids for number in (1, 2, 3)} | {vlm.ask(None, "hello").token_ids}
    assert len(answers) == 4


def test_answer_tells_what_happened(fresh: Fresh, picture: Picture) -> None:
    vlm = fresh()
    with vlm.session(picture(1), picture(2)) as session:
        first, second = session.ask("hello"), session.ask("hello")
    assert (first.image_cache, second.image_cache) == ("miss", "hit")
    assert (first.prefix_tokens_reused, second.prefix_tokens_reused) == (0, first.prompt_tokens - 1)
    assert first.image_tokens == 8
    assert first.prompt_tokens == 1 + 1 + 8 + len("hello") + 1
    assert len(first.logprobs) == len(first.token_ids) == 24
    assert first.finish_reason == "length"
    assert str(first) == first.text == vlm.tokenizer.decode(first.token_ids)
    timings = first.timings
    stages = timings.preprocess + timings.vision + timings.projector + timings.prefill
    assert min(timings.preprocess, timings.vision, timings.projector, timings.prefill, timings.decode_per_token) > 0
    assert stages <= timings.time_to_first_token <= timings.total
    assert second.timings.preprocess == second.timings.vision == second.timings.projector == 0
    assert session.last_answer == second
    assert vlm.ask(picture(1), "hello").image_cache == "hit"
    assert vlm.ask(None, "hello").image_cache == "none"


def test_overwritten_file_is_another_image(vlm: VLM, picture: Picture, tmp_path: Path) -> None:
    file = tmp_path / "frame.png"
    picture(1).save(file)
    with vlm.session(file) as session:
        before = session.ask("hello")
        picture(2).save(file)
        assert _same(session.ask("hello"), before)  # a session is about the image it was given
        with vlm.session(file) as later:
            assert _same(later.ask("hello"), vlm.ask(picture(2), "hello"))
    assert not _same(vlm.ask(file, "hello"), before)


def test_every_kind_of_image(vlm: VLM, picture: Picture, tmp_path: Path) -> None:
    file = tmp_path / "frame.png"
    picture(1).save(file)
    pixels = np.asarray(picture(1))
    answers = [vlm.ask(image, "hello") for image in (file, str(file), file.read_bytes(), picture(1), pixels, [pixels])]
    assert all(_same(answer, answers[0]) for answer in answers)


def test_changed_array_is_another_image(vlm: VLM, picture: Picture) -> None:
    """A camera that reuses its buffer: the session keeps the frame it was given."""
    frame = np.array(picture(1))
    with vlm.session(frame) as session:
        frame[...] = np.asarray(picture(2))
        assert _same(session.ask("hello"), vlm.ask(picture(1), "hello"))
    assert _same(vlm.ask(frame, "hello"), vlm.ask(picture(2), "hello"))


def test_cache_on_disk_serves_another_process(fresh: Fresh, picture: Picture, tmp_path: Path) -> None:
    first = fresh(image_cache_dir=tmp_path).ask(picture(1), "hello")
    again = fresh(image_cache_dir=tmp_path).ask(picture(1), "hello")
    other = fresh(image_cache_dir=tmp_path).ask(picture(2), "hello")
    assert [answer.image_cache for answer in (first, again, other)] == ["miss", "hit", "miss"]
    assert _same(first, again)


def test_closed_session(vlm: VLM) -> None:
    with vlm.session() as session:
        session.ask("hello")
    with pytest.raises(EdgeVLMError, match="session is closed"):
        session.ask("hello")
    session.close()


def test_prompt_longer_than_the_context(fresh: Fresh, picture: Picture) -> None:
    vlm = fresh(max_context=40)
    with vlm.session(picture(1)) as session:
        wanted = session.ask("hello")
        with pytest.raises(ContextOverflow) as error:
            session.ask("x" * 100)
        assert _same(session.ask("hello"), wanted)
    assert "needs 107 tokens (4 of them for 1 images), the context holds 40" in str(error.value)
    assert "\n" not in str(error.value)


def test_context_filled_to_the_last_token(fresh: Fresh) -> None:
    """The answer ends with "length" when the cache is full; the last token needs no place in it."""
    vlm = fresh(max_context=20)
    for question, tokens in (("x" * 17, 1), ("x" * 16, 2), ("x" * 10, 8)):
        answer = vlm.ask(None, question)
        assert answer.prompt_tokens + tokens - 1 == 20
        assert (len(answer.token_ids), answer.finish_reason) == (tokens, "length")
    with pytest.raises(ContextOverflow):
        vlm.ask(None, "x" * 18)


def test_more_images_than_the_context_holds(fresh: Fresh, picture: Picture) -> None:
    vlm = fresh(max_context=40)
    with pytest.raises(ContextOverflow, match="10 images need 40 tokens, the context holds 40"):
        vlm.session(*[picture(number) for number in range(10)])
    with vlm.session(*[picture(number) for number in range(9)]) as session, pytest.raises(ContextOverflow):
        session.ask("hello")


def test_bad_images_and_prompts(vlm: VLM, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    for image in (tmp_path / "notes.txt", tmp_path / "none.png", b"", np.zeros((4, 4)), 5):
        with pytest.raises(ImageError):
            vlm.session(image)  # type: ignore[arg-type]
    with vlm.session() as session, pytest.raises(PromptError, match="stands for an image"):
        session.ask("what is <image>?")


def test_sampling_is_reproducible(vlm: VLM, picture: Picture) -> None:
    with vlm.session(picture(1)) as session:
        first = session.ask("hello", temperature=2.0, seed=1)
        assert _same(session.ask("hello", temperature=2.0, seed=1), first)
        assert not _same(session.ask("hello", temperature=2.0, seed=2), first)


def test_options_reach_the_generation(vlm: VLM) -> None:
    plain = vlm.ask(None, "hello")
    assert len(vlm.ask(None, "hello", max_new_tokens=3).token_ids) == 3
    assert vlm.ask(None, "hello", logprobs=False).logprobs == ()
    unlike = vlm.ask(None, "hello", suppress_tokens=plain.token_ids[:1])
    assert plain.token_ids[0] not in unlike.token_ids
    spread = vlm.ask(None, "hello", repetition_penalty=5.0)
    assert len(set(spread.token_ids)) > len(set(plain.token_ids))
    stop = plain.text[5]
    stopped = vlm.ask(None, "hello", stop=stop)
    assert stopped.finish_reason == "stop_string"
    assert stopped.text == plain.text[: plain.text.index(stop)]


def test_system_prompt(vlm: VLM) -> None:
    answer = vlm.ask(None, "hello", system="be brief")
    assert answer.prompt_tokens == vlm.ask(None, "hello").prompt_tokens + 1 + len("be brief")
    assert answer.token_ids != vlm.ask(None, "hello").token_ids


def test_images_in_the_reused_prefix_are_not_encoded_again(fresh: Fresh, picture: Picture) -> None:
    """Not even when nothing is kept in the image cache."""
    vlm = fresh(image_cache_bytes=0)
    with vlm.session(picture(1)) as session:
        answers = [session.ask(question) for question in ("hello", "bye")]
    assert [answer.image_cache for answer in answers] == ["miss", "hit"]
    assert vlm.image_cache.counts().misses == 1


def test_cache_on_disk_knows_bundles_apart(
    own_bundle: Path, fresh: Fresh, picture: Picture, rewrite: Callable[..., None], tmp_path: Path
) -> None:
    """Another export of the model has other embeddings; they must not be taken for this one's."""
    folder = tmp_path / "cache"
    rewrite(own_bundle, lambda data: data["model"].update(name="other"))
    fresh(image_cache_dir=folder).ask(picture(1), "hello")
    other = edgevlm_runtime.load(own_bundle, threads=1, image_cache_dir=folder)
    assert [other.ask(picture(1), "hello").image_cache for _ in range(2)] == ["miss", "hit"]


def test_how_images_are_loaded_is_an_option(fresh: Fresh, picture: Picture, tmp_path: Path) -> None:
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1).save(turned, exif=exif)
    upright = np.rot90(np.asarray(picture(1)), -1)
    plain = fresh(image_cache_dir=tmp_path, apply_exif_orientation=False)
    turning = fresh(image_cache_dir=tmp_path, apply_exif_orientation=True)
    for source in (turned, turned.read_bytes()):
        assert _same(plain.ask(source, "hello"), plain.ask(picture(1), "hello"))
        assert _same(turning.ask(source, "hello"), plain.ask(upright, "hello"))
    deep = tmp_path / "deep.png"
    grey = np.asarray(picture(1).convert("L")).astype(np.uint16)
    Image.fromarray(np.rint(grey * (4095 / 255)).astype(np.uint16)).save(deep)
    eight = np.dstack([grey.astype(np.uint8)] * 3)
    assert _same(fresh(image_bit_depth=12).ask(deep, "hello"), plain.ask(eight, "hello"))
    with pytest.raises(ImageError, match="limit 142"):
        fresh(max_image_pixels=142).ask(turned, "hello")


@pytest.mark.parametrize("recorded", [True, False, None])
def test_the_bundle_says_whether_pictures_are_turned(
    own_bundle: Path, rewrite: Callable[..., None], picture: Picture, tmp_path: Path, recorded: bool | None
) -> None:
    """Bundles of before the record do as they did."""
    photo = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1).save(photo, exif=exif)
    rewrite(own_bundle, lambda data: data["image"].update(exif_orientation=recorded))
    if recorded is None:
        rewrite(own_bundle, lambda data: (data["image"].pop("exif_orientation"), data.update(schema_version=1)))
    upright = np.rot90(np.asarray(picture(1)), -1)
    for asked in (None, True, False):
        vlm = edgevlm_runtime.load(own_bundle, threads=1, apply_exif_orientation=asked)
        turning = bool(recorded) if asked is None else asked
        assert _same(vlm.ask(photo, "hello"), vlm.ask(upright if turning else picture(1), "hello"))


def test_text_that_is_no_unicode(vlm: VLM) -> None:
    """What the command line makes of bytes that are not UTF-8."""
    broken = b"caf\xe9".decode(errors="surrogateescape")
    with vlm.session() as session, vlm.session(system=broken) as other:
        with pytest.raises(PromptError, match="message 1 is not text: character 4 "):
            session.ask(broken)  # where the user wrote it, not where the template puts it
        for ask in (
            lambda: session.ask(broken),
            lambda: other.ask("hello"),
            lambda: session.choose("hello", [broken, "no"]),
            lambda: session.choose(broken, ["yes", "no"]),
        ):
            with pytest.raises(PromptError, match="not text") as error:
                ask()
            assert "\n" not in str(error.value)
            assert str(error.value).isascii()
        assert session.ask("hello").text


def test_values_of_another_type(handmade_bundle: Path, vlm: VLM) -> None:
    """One line each, never a traceback, and nothing is taken silently."""
    with vlm.session() as session:
        for name, call in {
            "provider": lambda: edgevlm_runtime.load(handmade_bundle, provider=5),
            "image_cache_dir": lambda: edgevlm_runtime.load(handmade_bundle, image_cache_dir=5),
            "image_cache_dir: ": lambda: edgevlm_runtime.load(handmade_bundle, image_cache_dir="\0"),
            "bundle": lambda: edgevlm_runtime.load(None),  # type: ignore[arg-type]
            "b'bundle'": lambda: edgevlm_runtime.load(b"bundle"),  # type: ignore[arg-type]
            "no such bundle": lambda: edgevlm_runtime.load("a\0b"),
            "cancel": lambda: session.ask("hello", cancel=5),  # type: ignore[arg-type]
            "logprobs": lambda: session.ask("hello", logprobs="no"),
            "[1, 2]": lambda: session.choose("hello", [1, 2]),  # type: ignore[list-item]
            "None": lambda: session.choose("hello", None),  # type: ignore[arg-type]
            "temperature": lambda: session.choose("hello", ["a", "b"], temperature="a"),
            "abstain_below": lambda: session.choose("hello", ["a", "b"], abstain_below="x"),
            "end": lambda: session.choose("hello", ["a", "b"], end="x"),
        }.items():
            with pytest.raises(EdgeVLMError) as error:
                call()
            assert name in str(error.value)
            assert "\n" not in str(error.value)


def test_more_threads_than_make_sense(handmade_bundle: Path) -> None:
    for threads in (10**4, 10**30):
        with pytest.raises(EdgeVLMError, match=r"bad value for threads: 10+: it must be at most \d+"):
            edgevlm_runtime.load(handmade_bundle, threads=threads)


def test_cache_on_disk_knows_engines_apart(
    fresh: Fresh, picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One provider under any of its names is one; another version of onnxruntime may compute otherwise."""
    names = ("cpu", "CPU", "CPUExecutionProvider")
    models = [fresh(image_cache_dir=tmp_path, provider=name) for name in names]
    assert [vlm.ask(picture(1), "hello").image_cache for vlm in models] == ["miss", "hit", "hit"]
    monkeypatch.setattr(ort, "__version__", "99.0")
    assert fresh(image_cache_dir=tmp_path).ask(picture(1), "hello").image_cache == "miss"
