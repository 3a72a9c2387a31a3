"""The training: what a batch holds, that a step learns, that a stopped training continues as if it had not stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from edgevlm_export import inspection
from edgevlm_export.inspection.glyphs import CHARACTERS
from edgevlm_export.inspection.parts import DEFECTS
from edgevlm_export.inspector import checkpoint_path
from edgevlm_export.inspector.train import batches, model, network, saving, vocabulary
from edgevlm_export.inspector.train.folder import FolderBatches, read
from edgevlm_export.inspector.train.loop import Trainer
from edgevlm_export.inspector.train.muon import orthogonal
from edgevlm_export.inspector.train.schedule import Schedule
from edgevlm_export.inspector.train.targets import HOLE, OFF_PLATE, SCREW, SEAT, targets

TINY = Schedule(steps=4, batch=2, seeing=1, warmup=2)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return vocabulary.build_tokenizer()


def test_tokenizer_is_rebuilt_as_shipped(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    saving.build_processor(tokenizer).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "processor_config.json"):
        assert (tmp_path / name).read_text() == (checkpoint_path() / name).read_text(), name


def test_tokenizer_reads_back_any_text_and_splits_codes(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == vocabulary.SIZE
    for text in ("code P45", "Grüße, 12 µm €", "<|user|>hello</s>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert [tokenizer.decode([token]) for token in tokenizer.encode("P45")] == ["P", "4", "5"]


def test_packed_conversations_are_the_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    """Tokens, places and targets of every conversation equal those of the rendered chat."""
    processor = saving.build_processor(tokenizer)
    subject = inspection.part(5)
    ids, expected, places, number = batches.pack(tokenizer, batches.conversations(subject))
    asked = iter(inspection.ask(subject))
    for conversation in range(1, number.max() + 1):
        mine = number == conversation
        turns = int((ids[mine] == tokenizer.convert_tokens_to_ids("<|assistant|>")).sum())
        chat = []
        for turn in range(turns):
            question = next(asked)
            picture = [{"type": "image"}] if turn == 0 else []
            chat.append({"role": "user", "content": [*picture, {"type": "text", "text": question.text}]})
            reply = {"type": "text", "text": question.answer(subject)}
            chat.append({"role": "assistant", "content": [reply]})
        rendered = tokenizer.encode(processor.apply_chat_template(chat).partition("<image>")[2])
        assert ids[mine].tolist() == rendered
        assert places[mine].tolist() == list(range(batches.PREFIX, batches.PREFIX + len(rendered)))
        targeted = expected[mine] != batches.IGNORED
        assert expected[mine][targeted].tolist() == [rendered[i + 1] for i in np.flatnonzero(targeted)]


def test_the_record_is_asked_beside_the_eight_questions(tokenizer: PreTrainedTokenizerFast) -> None:
    """In all places of a conversation, once, and with room to spare; the other questions stay as they were."""
    texts = {question.text for question in inspection.RECORDS}
    places = set()
    for seed in range(200):
        subject = inspection.part(seed)
        talks = batches.with_record(subject, batches.conversations(subject))
        (place,) = [(n, len(talk)) for talk in talks for n, (question, _) in enumerate(talk) if question in texts]
        places.add("alone" if place[1] == 1 else "first" if place[0] == 0 else "last")
        others = [[turn for turn in talk if turn[0] not in texts] for talk in talks]
        assert [talk for talk in others if talk] == batches.conversations(subject)
        assert (batches.pack(tokenizer, talks)[3] > 0).sum() < batches.TEXT
    assert places == {"alone", "first", "last"}
    assert batches.with_record(subject, [], percent=0) == []


def test_an_answer_is_never_longer_than_the_model_may_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    limit = model.build().generation_config.max_new_tokens
    longest = max(
        len(tokenizer.encode(question.answer(subject))) + 1
        for subject in map(inspection.part, range(500))
        for question in [*inspection.ask(subject), inspection.ask_record(subject)]
    )
    assert longest <= limit


def test_batches_of_a_further_training_begin_behind_the_first(tokenizer: PreTrainedTokenizerFast) -> None:
    ours = batches.Batches(tokenizer, 2)[3]
    again = batches.Batches(tokenizer, 2, first_seed=4, with_truth=False, records=0)[1]
    assert torch.equal(ours["image"], again["image"])
    assert set(again) == {"image", "text"}
    assert (again["text"][:, 3] > 0).sum() < (ours["text"][:, 3] > 0).sum()


def test_packed_loss_is_the_loss_of_the_plain_model(tokenizer: PreTrainedTokenizerFast) -> None:
    """Eight questions behind one picture cost what they would cost in chats of their own."""
    torch.manual_seed(0)
    net = network.Network(model.build()).eval()
    batch = batches.Batches(tokenizer, 1)[3]
    patches = net.patches(batch["image"])
    packed = net.language_loss(patches, batch["text"])
    net.model.set_attn_implementation("sdpa")  # as loaded by anyone else
    pixels = batch["image"].permute(0, 3, 1, 2).float() / 127.5 - 1
    ids, expected, _, number = batch["text"][0]
    opening = [1, vocabulary.SPECIALS.index("<|user|>"), *[vocabulary.SPECIALS.index("<image>")] * 144]
    total, count = torch.zeros(()), 0
    for conversation in range(1, int(number.max()) + 1):
        mine = number == conversation
        sequence = torch.cat([torch.tensor(opening), ids[mine]])[None]
        logits = net.model(input_ids=sequence, pixel_values=pixels).logits[0, batches.PREFIX :]
        wanted = expected[mine]
        total = total + torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        count += int((wanted != batches.IGNORED).sum())
    torch.testing.assert_close(packed, total / count, rtol=1e-4, atol=1e-4)


def test_a_batch_is_named_by_its_step(tokenizer: PreTrainedTokenizerFast) -> None:
    one, again, other = (batches.Batches(tokenizer, 3)[step] for step in (7, 7, 8))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["image"], other["image"])


@pytest.mark.parametrize("seed", range(40))
def test_auxiliary_truth_agrees_with_the_part(seed: int) -> None:
    part, truth = inspection.part(seed), targets(inspection.part(seed))
    maps = truth["maps"]
    assert maps[HOLE].sum() <= len(part.holes)
    assert maps[SCREW].sum() <= len(part.screws)
    assert maps[HOLE : SCREW + 1].any() == bool(part.holes or part.screws)
    assert maps[SEAT].sum() == bool(part.defect and part.defect.kind == "missing screw")
    assert [bool(maps[index].any()) for index in range(len(DEFECTS))] == [
        part.defect is not None and part.defect.kind == kind for kind in DEFECTS
    ]
    assert 60 <= (truth["cells"] != OFF_PLATE).sum() <= 144
    read = "".join(CHARACTERS[index] for index in truth["characters"] if index < len(CHARACTERS))
    assert read == (part.code or "")


def test_own_pictures_become_batches(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    inspection.write(tmp_path, "train", 30, questions_per_image=3)
    data = FolderBatches(tokenizer, 4, tmp_path)
    batch = data[2]
    assert batch["image"].shape == (4, 96, 96, 3)
    assert batch["text"].shape[:2] == (4, 4)
    assert batch["text"][:, 3].max() == 3
    images = torch.cat([data[step]["image"] for step in range(5)]).flatten(1)
    assert len(images.unique(dim=0)) == 10
    drawn = torch.from_numpy(np.stack([np.asarray(inspection.draw(seed)) for seed in range(10)])).flatten(1)
    assert torch.equal(images[:10].unique(dim=0), drawn.unique(dim=0))


def test_own_pictures_train_from_the_shipped_weights(tmp_path: Path) -> None:
    inspection.write(tmp_path / "data", "train", 8, questions_per_image=2)
    trainer = Trainer(Schedule(steps=2, batch=2, seeing=0), tmp_path, data=tmp_path / "data", start=checkpoint_path())
    trainer.train()
    assert 0 < trainer.running["language"] < 1
    assert set(trainer.running) == {"language"}


@pytest.mark.parametrize("line", ['{"image": "a.png", "question": "Good?"}', "no json", "[]"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "questions.jsonl").write_text('{"image": "a.png", "question": "Good?", "answer": "yes"}\n' + line)
    with pytest.raises(ValueError, match=r"questions.jsonl, line 2: needs image, question and answer"):
        read(tmp_path)


def test_orthogonal_makes_singular_values_alike() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 16, 48)
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_schedule_rises_then_falls_to_nothing() -> None:
    schedule = Schedule()
    rates = [schedule.rate(step) for step in range(schedule.steps + 1)]
    assert max(rates) == rates[schedule.warmup] == 1
    assert rates[-1] < 1e-6
    assert not schedule.with_language(0)
    assert schedule.with_language(schedule.seeing)


def test_a_stopped_training_continues_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = Trainer(TINY, tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    whole.train()
    (tmp_path / "parts").mkdir()
    first = Trainer(TINY, tmp_path / "parts")
    first.train(until=2)
    second = Trainer(TINY, tmp_path / "parts")
    second.resume()
    assert second.step == 2
    second.train()
    for one, other in zip(whole.master.parameters(), second.master.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (tmp_path / "parts" / "checkpoint" / "model.safetensors").exists()


def test_known_weights_go_on_without_the_auxiliary_heads(tmp_path: Path) -> None:
    schedule = Schedule(steps=1, batch=2, seeing=0, auxiliary_weight=0.0, first_seed=50)
    trainer = Trainer(schedule, tmp_path, start=checkpoint_path())
    trainer.train()
    assert set(trainer.running) == {"language"}
    assert all(parameter.grad is None for parameter in trainer.master.heads.parameters())


def test_resuming_with_another_schedule_is_refused(tmp_path: Path) -> None:
    trainer = Trainer(TINY, tmp_path)
    trainer.save()
    with pytest.raises(ValueError, match="belongs to another schedule"):
        Trainer(Schedule(steps=5), tmp_path).resume()
