"""The workload is what it says: so many tokens, an image the model takes as it is, two questions that differ."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgevlm.benchmark.workload import Workload, fit, prepare
from edgevlm_runtime import ContextOverflow, EdgeVLMError, ImageError, load
from edgevlm_runtime.bundle.folder import Bundle


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return Bundle.open(tiny_bundle)


@pytest.mark.parametrize("wanted", [1, 2, 17, 300])
def test_text_is_as_short_as_can_be(wanted):
    text = fit("one two three ", wanted, lambda text: len(text.split()))
    assert len(text.split()) == wanted
    assert text == text.strip()


def test_questions_have_the_tokens_asked_for(bundle, tmp_path):
    task, facts = prepare(Workload(text_tokens=40, new_tokens=8), bundle, tmp_path)
    vlm = load(bundle.path)
    with vlm.session(task.image) as session:
        first = session.ask(task.first, max_new_tokens=1)
        second = session.ask(task.second, max_new_tokens=1)
    assert first.prompt_tokens == facts.prompt_tokens == facts.image_tokens + facts.text_tokens
    assert facts.text_tokens == 40
    assert second.prompt_tokens == pytest.approx(first.prompt_tokens, abs=2)
    assert facts.image_tokens == first.image_tokens <= second.prefix_tokens_reused < facts.prompt_tokens - 20


def test_the_random_image_is_the_models_size_and_always_the_same(bundle, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, facts = prepare(Workload(), bundle, tmp_path / "a")
    two, _ = prepare(Workload(), bundle, tmp_path / "b")
    assert facts.image_size == (28, 28)
    first, again = (np.asarray(Image.open(task.image)) for task in (one, two))
    assert np.array_equal(first, again)
    assert first.std() > 60
    assert prepare(Workload(image_size=(50, 40)), bundle, tmp_path)[1].image_size == (50, 40)


def test_an_image_and_a_question_of_the_users(bundle, tmp_path):
    Image.new("RGB", (31, 22)).save(tmp_path / "part.png")
    given = Workload(image=tmp_path / "part.png", prompt="is there a scratch")
    task, facts = prepare(given, bundle, tmp_path)
    assert (facts.image, facts.image_size) == ("part.png", (31, 22))
    assert task.first == "is there a scratch" != task.second


def test_every_engine_gets_the_picture_that_was_asked_for(bundle, tmp_path):
    photo = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (22, 31), np.uint8)
    Image.fromarray(pixels.astype(np.uint16) * 16).save(photo, exif=exif)
    with pytest.raises(ImageError, match="--image-depth 12"):
        prepare(Workload(image=photo), bundle, tmp_path)
    given = Workload(image=photo, apply_exif_orientation=False, image_bit_depth=12)
    task, facts = prepare(given, bundle, tmp_path)
    assert (facts.image, facts.image_size) == ("photo.png", (31, 22))
    assert np.abs(np.asarray(Image.open(task.image))[..., 0].astype(int) - pixels).max() <= 1
    assert prepare(Workload(image=photo, image_bit_depth=12), bundle, tmp_path)[1].image_size == (22, 31)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"new_tokens": 1}, "new_tokens"),
        ({"repeats": 0}, "repeats"),
        ({"warmup": -1}, "warmup"),
        ({"text_tokens": 0}, "text_tokens"),
        ({"threads": 0}, "threads"),
        ({"image_size": (0, 5)}, "image size"),
        ({"image": "x.png", "image_size": (5, 5)}, "exclude each other"),
    ],
)
def test_refused(options, named):
    with pytest.raises(EdgeVLMError, match=named):
        Workload(**options)


def test_what_does_not_fit_is_refused_before_anything_runs(bundle, tmp_path):
    with pytest.raises(ContextOverflow, match="600 new tokens"):
        prepare(Workload(new_tokens=600, text_tokens=100), bundle, tmp_path)
    with pytest.raises(ImageError):
        prepare(Workload(image=tmp_path / "none.png"), bundle, tmp_path)
