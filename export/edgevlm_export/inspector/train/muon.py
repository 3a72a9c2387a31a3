"""Muon: momentum, then the nearest orthogonal matrix, for the matrices between embeddings and heads.

After Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), with the step scaled to that of AdamW as Liu et
al. 2025 do (arXiv:2502.16982). Matrices of one shape are orthogonalised together: small products cost mostly calls.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """``[N, rows, columns]`` to (nearly) orthogonal matrices by a quintic Newton-Schulz iteration in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrices.shape[1] <= matrices.shape[2]
    x: Tensor = (matrices if wide else matrices.transpose(1, 2)).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.transpose(1, 2)).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.05) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for alike in by_shape.values():
                self._update(alike, group["lr"], group["momentum"], group["weight_decay"])

    def _update(self, alike: list[Tensor], lr: float, momentum: float, decay: float) -> None:
        directions = []
        for parameter in alike:
            state = self.state[parameter]
            buffer = state.setdefault("momentum", torch.zeros_like(parameter))
            gradient = parameter.grad
            assert gradient is not None
            buffer.lerp_(gradient, 1 - momentum)
            directions.append(gradient.lerp(buffer, momentum))
        scale = 0.2 * max(alike[0].shape) ** 0.5
        updates = orthogonal(torch.stack(directions)) * scale
        for parameter, update in zip(alike, updates.unbind(), strict=True):
            parameter.mul_(1 - lr * decay).add_(update, alpha=-lr)
