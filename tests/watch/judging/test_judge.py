"""The judge with the shipped model: what `eval` says, one pass for all questions, answers taken over within bounds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgevlm_runtime
from edgevlm.evaluation.answerers import BundleAnswerer
from edgevlm.evaluation.datasets.inspection import Inspection
from edgevlm.watch.frames.frame import Frame
from edgevlm.watch.frames.regions import Region
from edgevlm.watch.judging.judge import Judge
from edgevlm.watch.judging.question import Golden
from edgevlm.watch.plan.plan import Reuse
from edgevlm_export import inspection
from edgevlm_runtime import VLM
from edgevlm_runtime.asking.choices import weigh
from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.pipeline import Pipeline
from edgevlm_runtime.vision.encoder import EncodedImage, ImageEncoder, ImageInput
from tests.support.judging import HOLES, SCRATCH, frame, plan, question
from tests.support.seal import write_manifest

CASES = 60
NEAR = 2e-3
"""In int8 a probability depends a little on which positions were computed together."""


@pytest.fixture(scope="module")
def parts() -> list[Image.Image]:
    return [example.image for example in inspection.examples("test", 8)]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the images that the vision encoder was run on."""
    keys: list[str] = []
    compute = ImageEncoder.compute

    def counted(self: ImageEncoder, image: ImageInput, *more: Any) -> EncodedImage:
        keys.append(image.key)
        return compute(self, image, *more)

    monkeypatch.setattr(ImageEncoder, "compute", counted)
    return keys


def test_verdicts_are_those_of_eval(inspector: VLM) -> None:
    """The same pictures and questions by both: choices with their probabilities, other answers word by word."""
    asked = defaultdict(list)
    for case in Inspection(CASES, "test", 1):
        (given,) = BundleAnswerer(inspector, 32).answers([case])
        asked[case.question, case.choices].append((case, given))
    verdicts = set()
    for (text, choices), cases in asked.items():
        one = question(text, choices=choices) if choices else question(text, "text", max_new_tokens=32)
        with Judge(inspector, plan(one, question(SCRATCH, name="decides"))) as judge:
            for case, given in cases:
                answer = judge.judge(frame(case.images[0])).answers[0]
                if not choices:
                    assert (answer.answer, answer.verdict) == (given.text, "")
                    assert answer.tokens == given.token_ids
                    continue
                expected = weigh(np.array(list(given.scores.values())), 1.0)
                assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=NEAR)
                assert answer.verdict == answer.answer == max(given.scores, key=given.scores.__getitem__)
                verdicts.add(answer.verdict)
    assert verdicts == {"yes", "no"}


def test_one_vision_pass_and_one_prefill_for_all_questions(
    inspector: VLM, parts: list[Image.Image], encoded: list[str]
) -> None:
    inspector.image_cache.clear()
    texts = [SCRATCH, "is there a dent?", HOLES]
    with Judge(inspector, plan(*[question(text, choices=("yes", "no", "4")) for text in texts])) as judge:
        for number, part in enumerate(parts[:3]):
            answers = judge.judge(frame(part)).answers
            assert [answer.text for answer in answers] == texts
            assert not any(answer.error for answer in answers)
            assert len(encoded) == number + 1


def test_golden_is_a_plain_session_of_two_images_and_is_computed_once(
    inspector: VLM, parts: list[Image.Image], tmp_path: Path, encoded: list[str]
) -> None:
    good = tmp_path / "good.png"
    parts[0].save(good)
    inspector.image_cache.clear()
    golden = Golden(images=(good,), text="the first part is good.")
    with Judge(inspector, plan(question(SCRATCH), question(HOLES, "text"), golden=golden)) as judge:
        found = [judge.judge(frame(part)).answers for part in parts[1:5]]
    assert len(encoded) == 1 + 4
    for part, (scratch, holes) in zip(parts[1:5], found, strict=True):
        with inspector.session(good, part) as session:
            chosen = session.choose(f"the first part is good.\n{SCRATCH}", ["yes", "no"])
            assert dict(scratch.probabilities) == pytest.approx(chosen.probabilities, abs=NEAR)
            assert holes.answer == session.ask(f"the first part is good.\n{HOLES}", max_new_tokens=64).text
            assert scratch.text == SCRATCH


def test_regions_have_sessions_of_their_own(inspector: VLM, parts: list[Image.Image], encoded: list[str]) -> None:
    left = Region(name="left", box=(0.0, 0.0, 0.5, 1.0))
    inspector.image_cache.clear()
    asked = [question(SCRATCH, name="whole"), question(SCRATCH, name="left", region="left"), question(HOLES, "text")]
    with Judge(inspector, plan(*asked, regions=(left,))) as judge:
        whole, half, holes = judge.judge(frame(parts[0])).answers
    assert [whole.question, half.question, holes.question] == ["whole", "left", HOLES]
    assert len(encoded) == 2
    width, height = parts[0].size
    for answer, seen in ((whole, parts[0]), (half, parts[0].crop((0, 0, width // 2, height)))):
        with inspector.session(seen) as session:
            expected = session.choose(SCRATCH, ["yes", "no"]).probabilities
        assert dict(answer.probabilities) == pytest.approx(expected, abs=NEAR)


def test_golden_pictures_of_the_frames_size_are_cut_alike(
    inspector: VLM, parts: list[Image.Image], tmp_path: Path
) -> None:
    width, height = parts[0].size
    left, small = Region(name="left", box=(0.0, 0.0, 0.5, 1.0)), tmp_path / "small.png"
    parts[0].save(tmp_path / "good.png")
    parts[1].resize((width // 2 + 3, height)).save(small)
    golden = Golden(images=(tmp_path / "good.png", small))
    with Judge(inspector, plan(question(SCRATCH, region="left"), regions=(left,), golden=golden)) as judge:
        (answer,) = judge.judge(frame(parts[2])).answers
    half = (0, 0, width // 2, height)
    with inspector.session(parts[0].crop(half), small, parts[2].crop(half)) as session:
        expected = session.choose(SCRATCH, ["yes", "no"]).probabilities
    assert dict(answer.probabilities) == pytest.approx(expected, abs=NEAR)


def test_an_unchanged_region_is_taken_over_so_many_times_in_a_row(
    inspector: VLM, parts: list[Image.Image], encoded: list[str]
) -> None:
    inspector.image_cache.clear()
    with Judge(
        inspector, plan(question(SCRATCH), question(HOLES, "text"), reuse=Reuse(below=0.02, at_most=3))
    ) as judge:
        answers = [judge.judge(frame(parts[0], number)).answers for number in range(9)]
        reused = [[answer.reused for answer in both] for both in answers]
        assert reused == [[number % 4 != 0] * 2 for number in range(9)]
        assert {answer.answer for answer in (both[1] for both in answers)} == {answers[0][1].answer}
        assert answers[0][0].difference is None
        assert [both[0].difference for both in answers[1:]] == [0.0] * 8
        other = judge.judge(frame(parts[1])).answers[0]
        assert (other.reused, other.difference > 0.02) == (False, True)
    assert len(encoded) == 2


def test_small_changes_add_up_to_one_that_is_asked_about(inspector: VLM, parts: list[Image.Image]) -> None:
    """The difference is to the frame that was asked about, not to the one before: a scene that creeps is noticed."""
    pixels = np.asarray(parts[0].convert("RGB")).astype(np.int16)
    with Judge(inspector, plan(question(SCRATCH), reuse=Reuse(below=0.05, at_most=1000))) as judge:
        for step in range(200):
            darker = pixels.copy()
            darker[20:50, 20:50] = np.maximum(darker[20:50, 20:50] - step, 0)
            answer = judge.judge(Frame(step, 0.0, 0.0, darker.astype(np.uint8))).answers[0]
            if step and not answer.reused:
                break
        assert 5 < step < 60
        assert answer.difference > 0.05


def test_one_region_may_be_taken_over_and_another_asked(inspector: VLM, parts: list[Image.Image]) -> None:
    regions = (Region(name="left", box=(0.0, 0.0, 0.5, 1.0)), Region(name="right", box=(0.5, 0.0, 1.0, 1.0)))
    asked = [question(SCRATCH, name=one.name, region=one.name) for one in regions]
    mixed = np.asarray(parts[0].convert("RGB")).copy()
    mixed[:, mixed.shape[1] // 2 :] = np.asarray(parts[1].convert("RGB"))[:, mixed.shape[1] // 2 :]
    with Judge(inspector, plan(*asked, regions=regions, reuse=Reuse(below=0.02))) as judge:
        judge.judge(frame(parts[0]))
        left, right = judge.judge(Frame(2, 0.0, 0.0, mixed)).answers
    assert (left.reused, right.reused) == (True, False)


def test_without_reuse_nothing_is_compared(inspector: VLM, parts: list[Image.Image]) -> None:
    with Judge(inspector, plan(question(SCRATCH))) as judge:
        for _ in range(2):
            (answer,) = judge.judge(frame(parts[0])).answers
            assert (answer.reused, answer.difference) == (False, None)


def test_the_worst_verdict_is_the_frames(inspector: VLM, parts: list[Image.Image]) -> None:
    """Thresholds of 1 make a question unsure, a table of verdicts makes it always bad or good."""
    bad = question(SCRATCH, name="bad", verdicts={"yes": "reject", "no": "reject"}, at_least=0.0)
    good = question(SCRATCH, name="good", verdicts={"yes": "ok", "no": "ok"}, at_least=0.0)
    unsure = question(SCRATCH, name="unsure", verdicts={"yes": "ok", "no": "ok"}, at_least=1.0)
    for asked, order, verdict in [
        ([good, bad], ("reject", "ok"), "reject"),
        ([good, unsure], ("reject", "ok"), "unsure"),
        ([good, unsure, bad], ("reject", "ok"), "reject"),
        ([good, unsure, bad], ("unsure", "reject", "ok"), "unsure"),
        ([good, bad], (), "ok"),
        ([unsure, bad], (), "unsure"),
        ([question(HOLES, "text"), bad], (), "reject"),
    ]:
        with Judge(inspector, plan(*asked, order=order)) as judge:
            assert judge.judge(frame(parts[0])).verdict == verdict, (order, verdict)


def test_verdicts_are_named_in_the_plans_order(inspector: VLM) -> None:
    asked = [question(SCRATCH, verdicts={"yes": "reject", "no": "ok"}), question(HOLES, "text")]
    with Judge(inspector, plan(*asked)) as judge:
        assert judge.verdicts == ("reject", "ok", "unsure")
    with Judge(inspector, plan(*asked, order=("reject", "rework", "ok"))) as judge:
        assert judge.verdicts == ("reject", "rework", "ok", "unsure")


def test_what_goes_wrong_with_one_question_is_said_there(
    inspector: VLM, parts: list[Image.Image], tmp_path: Path
) -> None:
    Image.new("L", (5, 5), 255).save(tmp_path / "mask.png")
    regions = (Region(name="far", box=(500, 500, 600, 600)), Region(name="masked", mask=tmp_path / "mask.png"))
    asked = [question(SCRATCH), *[question(SCRATCH, name=one.name, region=one.name) for one in regions]]
    with Judge(inspector, plan(*asked, regions=regions, order=("yes", "no"), reuse=Reuse(below=0.1))) as judge:
        for _ in range(2):
            judgement = judge.judge(frame(parts[0]))
            fine, far, masked = judgement.answers
            assert (fine.error, far.verdict, masked.verdict) == ("", "unsure", "unsure")
            assert "region far" in far.error
            assert "the mask" in masked.error
            assert not far.reused
        assert judgement.verdict == ("yes" if fine.verdict == "yes" else "unsure")


def test_a_question_that_fails_is_asked_again_on_an_unchanged_scene(
    inspector: VLM, parts: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Judge(inspector, plan(question(SCRATCH), reuse=Reuse(below=0.1))) as judge:

        def refuse(*_: object, **__: object) -> None:
            raise EdgeVLMError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(Pipeline, "assemble", refuse)
            (failed,) = judge.judge(frame(parts[0])).answers
        assert (failed.error, failed.verdict, failed.answer) == ("no room", "unsure", "")
        (answer,) = judge.judge(frame(parts[0])).answers
        assert (answer.error, answer.reused) == ("", False)


def test_a_camera_may_change_its_resolution(inspector: VLM, parts: list[Image.Image]) -> None:
    large = parts[0].resize((160, 120))
    with Judge(inspector, plan(question(SCRATCH), reuse=Reuse(below=0.5))) as judge:
        judge.judge(frame(parts[0]))
        (answer,) = judge.judge(frame(large)).answers
    with inspector.session(large) as session:
        assert dict(answer.probabilities) == pytest.approx(
            session.choose(SCRATCH, ["yes", "no"]).probabilities, abs=NEAR
        )


@pytest.mark.parametrize(
    ("asked", "fields", "message"),
    [
        ([question(HOLES, "text")], {}, "no question gives a verdict"),
        ([question(SCRATCH, region="left")], {}, "unknown region left: known are none"),
        ([question(SCRATCH)], {"order": ("reject", "ok")}, "gives the verdict yes, which order does not have"),
        ([question(SCRATCH)], {"golden": Golden(images=(Path("nowhere.png"),))}, "nowhere.png"),
        (
            [question(SCRATCH, region="left")],
            {"regions": (Region(name="left", mask=Path("nowhere.png")),)},
            "nowhere.png",
        ),
    ],
)
def test_a_plan_that_cannot_be_judged(inspector: VLM, asked: list, fields: dict, message: str) -> None:
    with pytest.raises(EdgeVLMError, match=message):
        Judge(inspector, plan(*asked, **fields))


def test_check_names_the_question_that_cannot_be_asked(
    inspector: VLM, parts: list[Image.Image], tmp_path: Path
) -> None:
    with Judge(inspector, plan(question(SCRATCH), question(HOLES, "text"))) as judge:
        judge.check()
        before = judge.judge(frame(parts[0])).answers[0].probabilities
    parts[0].save(tmp_path / "good.png")
    crowded = Golden(images=(tmp_path / "good.png",) * 40)
    with (
        Judge(inspector, plan(question(SCRATCH), golden=crowded)) as judge,
        pytest.raises(EdgeVLMError, match="context"),
    ):
        judge.check()
    with Judge(inspector, plan(question(SCRATCH))) as judge:
        assert dict(judge.judge(frame(parts[0])).answers[0].probabilities) == pytest.approx(dict(before), abs=NEAR)


def test_choices_that_are_the_same_to_the_model(inspector: VLM, tmp_path: Path) -> None:
    """The shipped model with a tokenizer that does not tell capitals."""
    folder = Path(shutil.copytree(inspector.bundle.path, tmp_path / "lower"))
    tokenizer, manifest = folder / "tokenizer.json", json.loads((folder / "manifest.json").read_text())
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "normalizer": {"type": "Lowercase"}}))
    digest, size = hashlib.sha256(tokenizer.read_bytes()).hexdigest(), tokenizer.stat().st_size
    manifest["files"]["tokenizer.json"] = {"sha256": digest, "bytes": size}
    write_manifest(folder, manifest)
    alike = question("what is it?", name="same", choices=("Crack", "crack"))
    with (
        Judge(edgevlm_runtime.load(folder), plan(question(SCRATCH), alike)) as judge,
        pytest.raises(EdgeVLMError) as refused,
    ):
        judge.check()
    assert str(refused.value) == (
        "question same: choices ['Crack', 'crack'] do not differ in this model's tokens: word them otherwise"
    )


def test_the_system_prompt_is_the_plans(inspector: VLM) -> None:
    """This model's chat template knows none, and says so."""
    with Judge(inspector, plan(question(SCRATCH), system="look well")) as judge, pytest.raises(EdgeVLMError) as refused:
        judge.check()
    assert "user and assistant only, not system" in str(refused.value)


def test_closed_twice(inspector: VLM, parts: list[Image.Image]) -> None:
    judge = Judge(inspector, plan(question(SCRATCH)))
    judge.close()
    judge.close()
    assert "closed" in judge.judge(frame(parts[0])).answers[0].error
