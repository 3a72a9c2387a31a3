"""``python -m edgevlm_export.inspector.evaluate [CHECKPOINT] --n 2000``: exact match by kind of question, in PyTorch.

The checkpoint is loaded by ``transformers`` alone, its float16 weights compute in float32, and ``generate()`` answers.
``--images blank`` and ``--images shuffled`` ask about a grey picture or another part's: what is left is guessing.
``--turns 2`` asks a second question in the same chat, after the model's own first answer, and scores that one.
``--records`` asks for the inspection record, as JSON, in place of the eight kinds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from edgevlm_export import inspection
from edgevlm_export.checkpoints import door
from edgevlm_export.inspection import Example
from edgevlm_export.inspection.parts import SIZE
from edgevlm_export.inspection.record import KIND as RECORD
from edgevlm_export.inspection.splits import held_out
from edgevlm_export.inspector import checkpoint_path

Message = dict[str, Any]
Chat = list[Message]


@dataclass(frozen=True)
class Result:
    example: Example
    answer: str

    @property
    def right(self) -> bool:
        return self.answer == self.example.answer


class Inspector:
    """The PyTorch model behind a plain question-and-answer call."""

    def __init__(self, checkpoint: Path | str) -> None:
        self.processor = door.processor(Path(checkpoint))
        self.model = door.model(Path(checkpoint)).eval()

    @torch.inference_mode()
    def answer(self, chats: Sequence[Chat]) -> list[str]:
        """Greedy answers to several chats at once, padded on the left."""
        inputs = self.processor.apply_chat_template(
            list(chats),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        tokens = self.model.generate(**inputs)
        decoded = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in decoded]


def opening(image: Image.Image, question: str) -> Chat:
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def follow_up(chat: Chat, answer: str, question: str) -> Chat:
    """The chat, continued by an answer and a next question about the same picture."""
    replied = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    return [*chat, replied, {"role": "user", "content": [{"type": "text", "text": question}]}]


def _unchanged(images: list[Image.Image]) -> list[Image.Image]:
    return images


def _blank(images: list[Image.Image]) -> list[Image.Image]:
    return [Image.new("RGB", (SIZE, SIZE), (128, 128, 128)) for _ in images]


def _shuffled(images: list[Image.Image]) -> list[Image.Image]:
    """Every picture belongs to another part."""
    return images[1:] + images[:1]


IMAGES: dict[str, Callable[[list[Image.Image]], list[Image.Image]]] = {
    "right": _unchanged,
    "blank": _blank,
    "shuffled": _shuffled,
}


def _in_batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def run(
    inspector: Inspector,
    n: int,
    *,
    images: str = "right",
    turns: int = 1,
    split: str = "test",
    batch: int = 32,
    records: bool = False,
) -> list[Result]:
    """Ask ``n`` questions; with two turns every one of them follows another about the same picture."""
    draw = inspection.records if records else inspection.examples
    asked = list(draw(split, n * turns, questions_per_image=turns))
    rows = [asked[start : start + turns] for start in range(0, len(asked), turns)]
    pictures = IMAGES[images]([row[0].image for row in rows])
    results: list[Result] = []
    for some in _in_batches(list(zip(rows, pictures, strict=True)), batch):
        chats = [opening(picture, row[0].question) for row, picture in some]
        for turn in range(1, turns):
            said = inspector.answer(chats)
            chats = [
                follow_up(chat, answer, row[turn].question)
                for chat, answer, (row, _) in zip(chats, said, some, strict=True)
            ]
        answers = inspector.answer(chats)
        results += [Result(row[-1], answer) for (row, _), answer in zip(some, answers, strict=True)]
    return results


def table(results: Sequence[Result]) -> dict[str, tuple[int, int]]:
    """Number of questions and of exact answers by kind, then of codes that training never saw, and of all."""
    records = [result for result in results if result.example.kind == RECORD]
    groups = {kind: [r for r in results if r.example.kind == kind] for kind in inspection.KINDS}
    spelled = groups["code"]
    if records:
        groups, spelled = {RECORD: records}, records
    groups["code, unseen"] = [r for r in spelled if r.example.part.code and held_out(r.example.part.code)]
    groups["all"] = list(results)
    return {name: (len(group), sum(r.right for r in group)) for name, group in groups.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edgevlm_export.inspector.evaluate", description=__doc__)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=checkpoint_path())
    parser.add_argument("--n", type=int, default=2000, help="questions (default: %(default)s)")
    parser.add_argument("--images", choices=tuple(IMAGES), default="right")
    parser.add_argument("--turns", type=int, default=1, help="score the last of this many questions in one chat")
    parser.add_argument("--split", choices=tuple(inspection.SPLITS), default="test")
    parser.add_argument("--records", action="store_true", help="ask for the record, as JSON")
    parser.add_argument("--wrong", action="store_true", help="list wrong answers")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def _as_json(results: Sequence[Result]) -> str:
    counts = table(results).items()
    return json.dumps({name: {"n": n, "exact_match": right / n if n else None} for name, (n, right) in counts})


def _as_text(results: Sequence[Result], *, wrong: bool) -> str:
    lines = []
    for result in results if wrong else []:
        if not result.right:
            example = result.example
            lines.append(f"{example.part.seed} {example.question} {example.answer!r}: {result.answer!r}")
    lines.append(f"{'question':14} {'n':>5} {'exact match':>12}")
    for name, (n, right) in table(results).items():
        lines.append(f"{name:14} {n:5} {100 * right / n if n else math.nan:10.1f} %")
    return "\n".join(lines)


def main() -> None:
    chosen = _arguments()
    torch.set_num_threads(1)  # the products are so small that threads spend more time meeting than they save
    inspector = Inspector(chosen.checkpoint)
    results = run(
        inspector, chosen.n, images=chosen.images, turns=chosen.turns, split=chosen.split, records=chosen.records
    )
    sys.stdout.write((_as_json(results) if chosen.json else _as_text(results, wrong=chosen.wrong)) + "\n")


if __name__ == "__main__":
    main()
