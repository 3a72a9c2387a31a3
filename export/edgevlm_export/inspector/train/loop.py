"""The training loop: bfloat16 on float32 master weights, resumable, with its curve in a CSV file."""

from __future__ import annotations

import csv
import logging
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from edgevlm_export.checkpoints import door
from edgevlm_export.inspector.train import model as architecture
from edgevlm_export.inspector.train import saving, vocabulary
from edgevlm_export.inspector.train.batches import Batches
from edgevlm_export.inspector.train.folder import FolderBatches
from edgevlm_export.inspector.train.muon import Muon
from edgevlm_export.inspector.train.network import Network
from edgevlm_export.inspector.train.schedule import Schedule

logger = logging.getLogger(__name__)

SAVE_EVERY, LOG_EVERY = 200, 20


class Trainer:
    """``master`` keeps the weights in float32; ``worker``, which computes, is its bfloat16 copy."""

    def __init__(self, schedule: Schedule, out: Path, data: Path | None = None, start: Path | None = None) -> None:
        """``data``: a folder to learn from instead of the drawn parts; ``start``: a checkpoint to begin with."""
        torch.manual_seed(schedule.seed)
        self.schedule, self.out, self.step, self.seconds = schedule, out, 0, 0.0
        self.tokenizer = vocabulary.build_tokenizer()
        self.batches = FolderBatches(self.tokenizer, schedule.batch, data) if data else self._drawn()
        self.master = Network(architecture.build())
        self.worker = Network(architecture.build()).to(torch.bfloat16)
        if start:
            known = door.model(start)
            self.master.model.load_state_dict(known.state_dict())
        self.pairs = list(zip(self.master.parameters(), self.worker.parameters(), strict=True))
        matrices, others = self._sort()
        decay = schedule.weight_decay
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=schedule.matrix_rate, weight_decay=decay),
            torch.optim.AdamW(others, lr=schedule.other_rate, betas=(0.9, 0.98), weight_decay=0.0, foreach=True),
        ]
        self.peaks = [schedule.matrix_rate, schedule.other_rate]
        self.running: dict[str, float] = {}

    def _drawn(self) -> Batches:
        schedule = self.schedule
        return Batches(
            self.tokenizer,
            schedule.batch,
            first_seed=schedule.first_seed,
            records=schedule.records,
            with_truth=schedule.auxiliary_weight > 0,
        )

    def _sort(self) -> tuple[list[Tensor], list[Tensor]]:
        """Matrices inside the layers go to Muon; embeddings, norms, biases and heads to AdamW."""
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, parameter in self.master.named_parameters():
            inside = ".layers." in name or "projector" in name
            (matrices if inside and parameter.dim() == 2 else others).append(parameter)
        return matrices, others

    def train(self, until: int | None = None) -> None:
        """Continue to the last step, or to ``until`` (a pilot; the schedule stays that of the whole run)."""
        last = min(self.schedule.steps, until or self.schedule.steps)
        self._refresh()
        batches = DataLoader(
            self.batches,
            batch_size=None,
            sampler=range(self.step, last),
            num_workers=1,
            prefetch_factor=8,
        )
        started = time.monotonic()
        for batch in batches:
            self._advance(batch)
            now = time.monotonic()
            self.seconds, started = self.seconds + now - started, now
            if self.step % LOG_EVERY == 0:
                self._log()
            if self.step % SAVE_EVERY == 0 or self.step == last:
                self.save()

    def _advance(self, batch: dict[str, Tensor]) -> None:
        step, schedule = self.step, self.schedule
        losses = self.worker(batch, with_language=schedule.with_language(step))
        total = sum(
            loss * (schedule.language_weight if name == "language" else schedule.auxiliary(step))
            for name, loss in losses.items()
        )
        assert isinstance(total, Tensor)
        total.backward()
        for master, worker in self.pairs:
            master.grad = worker.grad.float() if worker.grad is not None else None
            worker.grad = None
        torch.nn.utils.clip_grad_norm_(self.master.parameters(), schedule.clip)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * schedule.rate(step)
            optimizer.step()
        self._refresh()
        for name, loss in losses.items():
            self.running[name] = 0.9 * self.running.get(name, loss.item()) + 0.1 * loss.item()
        self.step += 1

    @torch.no_grad()
    def _refresh(self) -> None:
        torch._foreach_copy_([worker for _, worker in self.pairs], [master for master, _ in self.pairs])

    def _log(self) -> None:
        """One line in the log and one row in ``curve.csv``; losses are running means."""
        losses = {name: round(value, 4) for name, value in sorted(self.running.items())}
        logger.info("step %d of %d, %.0f s: %s", self.step, self.schedule.steps, self.seconds, losses)
        names = ["language", *sorted(name for name in self.running if name != "language")]
        curve = self.out / "curve.csv"
        fresh = not curve.exists()
        with curve.open("a", newline="") as file:
            rows = csv.writer(file)
            if fresh:
                rows.writerow(["step", "seconds", *names])
            rows.writerow([self.step, round(self.seconds), *(losses.get(name, "") for name in names)])

    def save(self) -> None:
        """``state.pt`` to resume from and ``checkpoint/`` to use; the state is replaced in one move."""
        state: dict[str, object] = {
            "step": self.step,
            "seconds": self.seconds,
            "schedule": asdict(self.schedule),
            "master": self.master.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        torch.save(state, self.out / "state.new")
        (self.out / "state.new").replace(self.out / "state.pt")
        saving.save(self.master.model, self.tokenizer, self.out / "checkpoint")

    def resume(self) -> None:
        """Continue from ``state.pt`` where there is one; rows of the curve after it are dropped."""
        path = self.out / "state.pt"
        if not path.exists():
            return
        state = door.saved_state(path)
        if state["schedule"] != asdict(self.schedule):
            raise ValueError(f"{path} belongs to another schedule: {state['schedule']}")
        self.step, self.seconds = state["step"], state["seconds"]
        self.master.load_state_dict(state["master"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        curve = self.out / "curve.csv"
        if curve.exists():
            head, *rows = curve.read_text().splitlines()
            kept = [row for row in rows if int(row.split(",")[0]) <= self.step]
            curve.write_text("\n".join([head, *kept]) + "\n")
