"""How much each layer's quantization costs: one pass forward and one back, weights streamed.

To second order, a small change d of a layer's output changes the next-token distribution by

    KL = 1/2 E[(g . d)^2],    g = the gradient of log p(token) for a token drawn from the model's own distribution,

since the curvature of KL at zero is the Fisher information. So one gradient, of one drawn token per position, weighs
the output error of every layer in every format. (Fisher-weighted output errors: BRECQ, Li et al. 2021, for
reconstruction; NVIDIA Model Optimizer's `auto_quantize` scores layers so. Positions and layers are taken as
independent.) The gradient goes back one decoder layer at a time: in memory are one layer with its activations, and the
hidden states between layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from edgevlm_export.calibration.loss import CHUNK
from edgevlm_export.families.decoder import soft_cap
from edgevlm_export.graphs.edit import Rows
from edgevlm_export.precision import get_format
from edgevlm_export.precision.base import Made
from edgevlm_export.streaming.model import StreamedModel
from edgevlm_export.streaming.samples import Samples
from edgevlm_export.streaming.spool import Spool

SEED = 0
"""Of the drawn tokens."""
WORST = 1e12
"""What a way of holding a layer costs that overflows: sums and differences of costs stay numbers."""

Costs = dict[str, dict[str, float]]
"""Weight to format to the KL, in nats per position, that holding this weight so adds."""


@dataclass
class Sensitivity:
    """Measures; `costs` fills up."""

    model: StreamedModel
    samples: Samples
    rows: Mapping[str, Rows]
    """Weight to what is known of the rows that its layer reads."""
    formats: Mapping[str, Sequence[str]]
    """Weight to the names of the formats to measure, the one it has first."""
    spool: Spool
    advance: Callable[[int, int], None]
    costs: Costs = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    """Weight to a name that layers have in common which read the same input."""
    _read: list[Tensor] = field(default_factory=list)
    """Inputs of the decoder layer that runs, kept alive so that they can be told apart."""

    def measure(self) -> None:
        """Fill `costs` and `groups`."""
        layers = self.model.layers
        inputs, last = self._forward()
        gradient = self._head(last)
        for number in reversed(range(len(layers))):
            gradient = self._back(layers[number], *inputs.pop(), gradient)
            self.advance(len(layers) - number, len(layers))

    def _forward(self) -> tuple[list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]], Tensor]:
        """What each layer was called with, and the last hidden states [sequences, length, hidden]."""
        calls: list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]] = []
        states: list[Tensor] = []

        def called(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.append((args[0], args[1:], kwargs))

        def returned(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            states[:] = [output[0] if isinstance(output, tuple) else output]

        hooks = [layer.register_forward_pre_hook(called, with_kwargs=True) for layer in self.model.layers]
        hooks.append(self.model.layers[-1].register_forward_hook(returned))
        try:
            self.model.decode(self.samples)
        finally:
            for hook in hooks:
                hook.remove()
        return calls, states[0]

    def _head(self, states: Tensor) -> Tensor:
        """Gradient of the drawn tokens' log-probabilities with respect to the last hidden states, zero off the text."""
        gradient = torch.zeros_like(states)
        rows, text = states[self.samples.text], torch.zeros_like(states[self.samples.text])
        generator = torch.Generator().manual_seed(SEED)
        name, cap = self.model.head_name, self.model.family.logit_cap
        weight = self.model.weights.read(name).float()
        for start in range(0, len(rows), CHUNK):
            hidden = rows[start : start + CHUNK].clone().requires_grad_()
            with torch.enable_grad():
                x = self.model.finish(hidden)
                chosen = torch.log_softmax(soft_cap(nn.functional.linear(x, weight), cap), -1)
                tokens = torch.multinomial(chosen.detach().exp(), 1, generator=generator)
                chosen.gather(-1, tokens).sum().backward()
            assert hidden.grad is not None
            text[start : start + CHUNK] = hidden.grad
            for fmt in self.formats.get(name, ()):
                found = torch.log_softmax(soft_cap(self._simulated(name, fmt, x.detach(), weight), cap), -1)
                wanted = chosen.detach()
                self._add(name, fmt, float((wanted.exp() * (wanted - found)).sum()))
        gradient[self.samples.text] = text
        return gradient

    def _back(
        self, layer: nn.Module, states: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], gradient: Tensor
    ) -> Tensor:
        """Score the linear layers of one decoder layer; the gradient with respect to its input."""
        prefix = self.model.names[layer]
        hooks = [
            hook
            for module in layer.modules()
            if isinstance(module, nn.Linear)
            for hook in self._hooks(prefix, f"{self.model.names[module]}.weight", module)
        ]
        try:
            with self.model.holding(layer), torch.enable_grad():
                hidden = states.detach().clone().requires_grad_()
                output = layer(hidden, *args, **kwargs)
                (output[0] if isinstance(output, tuple) else output).backward(gradient)
        finally:
            self._read.clear()
            for hook in hooks:
                hook.remove()
        assert hidden.grad is not None
        return hidden.grad

    def _hooks(self, prefix: str, weight: str, module: nn.Linear) -> Iterator[RemovableHandle]:
        change = self.model.edits.inputs.get(weight)
        if change is not None:
            yield module.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:]))
        if weight in self.formats:
            yield module.register_forward_hook(partial(self._watch, prefix, weight))

    def _watch(self, prefix: str, weight: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Have the layer scored when its output's gradient is known."""
        x, own = inputs[0].detach(), module.get_parameter("weight").detach()
        place = next((number for number, read in enumerate(self._read) if read is inputs[0]), len(self._read))
        if place == len(self._read):
            self._read.append(inputs[0])
        self.groups[weight] = f"{prefix}/{place}"
        output.register_hook(partial(self._score, weight, x, own))

    @torch.no_grad()
    def _score(self, weight: str, x: Tensor, own: Tensor, gradient: Tensor) -> None:
        """Add 1/2 (g . d)^2 over all positions, for each format."""
        real = self.samples.real
        rows, slopes = x[real], gradient[real]
        exact = nn.functional.linear(rows, own)
        for number, name in enumerate(self.formats[weight]):
            made = self.spool.load(weight) if number == 0 else None
            change = self._simulated(weight, name, rows, own, made) - exact
            self._add(weight, name, 0.5 * float((change * slopes).sum(-1).square().sum()))

    def _simulated(self, weight: str, fmt: str, x: Tensor, own: Tensor, made: Made = None) -> Tensor:
        """The layer's output [rows, out] as `format` computes it, rows together as the loss is measured."""
        return get_format(fmt).simulate(x, own, made, self.rows[weight], CHUNK)

    def _add(self, weight: str, fmt: str, cost: float) -> None:
        costs = self.costs.setdefault(weight, {})
        cost = cost if math.isfinite(cost) else WORST
        costs[fmt] = costs.get(fmt, 0.0) + cost / int(self.samples.text.sum())
