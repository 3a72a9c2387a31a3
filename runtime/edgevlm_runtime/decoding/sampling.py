"""From logits to the next token, with the processors of Hugging Face `generate` in its order:
repetition penalty, suppressed tokens, then (when sampling) temperature, top-k, top-p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgevlm_runtime.errors import EdgeVLMError
from edgevlm_runtime.options import GenerationOptions

Logits = NDArray[np.float32]
Scores = NDArray[np.float64]
Ids = NDArray[np.int64]

_LEAST = 1e-9
_STEEPEST = 700.0
"""Beyond it exp overflows."""
_NUCLEUS = 1024
"""Tokens looked at first for top-p; nearly always enough, and far cheaper than sorting the vocabulary."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One generated token and the log-probability that the model's own logits give it (None when not asked for)."""

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens and their log-probabilities, as many as were asked for, the likeliest first."""


class Sampler:
    """Chooses the tokens of one answer. Keeps which tokens were seen and the state of the random generator."""

    def __init__(self, options: GenerationOptions, prompt_ids: Ids, vocab: int) -> None:
        """`prompt_ids` [n]: the prompt, image tokens included, as the repetition penalty counts them."""
        self._options = options
        # numpy.random takes tens of milliseconds to import: not on the way to a greedy answer's first token
        self._rng = np.random.default_rng(options.seed) if options.temperature > 0 else None
        self._uniform: float | None = None
        """The next random number, where it was looked at already."""
        self._room = np.empty(vocab, dtype=np.float32)
        self._seen = np.zeros(vocab, dtype=np.bool_)
        self._seen[prompt_ids[(prompt_ids >= 0) & (prompt_ids < vocab)]] = True
        self._penalised: Ids = np.flatnonzero(self._seen)
        self._suppressed = np.array([token for token in options.suppress_tokens if token < vocab], dtype=np.int64)

    def pick(self, logits: Logits, allowed: NDArray[np.bool_] | None = None) -> Pick:
        """The next token for `logits` [vocab], which are left as they are; one of those `allowed` [vocab] where that is
        given. Raises `EdgeVLMError` when they are not numbers, or no token is left."""
        likeliest = int(np.argmax(logits))
        if not np.isfinite(logits[likeliest]):
            raise EdgeVLMError("the decoder's logits are not numbers: use a bundle of higher precision")
        scores = self._process(logits, allowed)
        if scores is not logits:
            _check_choice(float(scores.max()))
        if self._rng is not None:
            token, self._uniform = _drawn(*candidates(scores, self._options), self._random()), None
        else:
            token = likeliest if scores is logits else int(np.argmax(scores))
        return self.given(logits, token)

    def unsure(self, logits: Logits, rounding: float, allowed: NDArray[np.bool_] | None = None) -> bool:
        """Whether `pick` could choose another token if each of `logits` [vocab] were off by up to `rounding`."""
        if not rounding:
            return False
        scores, penalty = self._process(logits, allowed), self._options.repetition_penalty
        apart = 2 * rounding * max(penalty, 1 / penalty)
        if self._rng is None:
            return int(np.count_nonzero(scores >= scores.max() - apart)) > 1
        return _draw_unsure(scores, self._random(), apart, self._options)

    def _random(self) -> float:
        """The number that decides the next draw."""
        assert self._rng is not None
        if self._uniform is None:
            self._uniform = float(self._rng.random())
        return self._uniform

    def given(self, logits: Logits, token: int) -> Pick:
        """A token that follows in any case, where the model's `logits` [vocab] are these."""
        if self._options.repetition_penalty != 1.0 and not self._seen[token]:
            self._seen[token] = True
            self._penalised = np.append(self._penalised, token)
        if not self._options.logprobs:
            return Pick(token, None)
        top = likeliest(logits, self._options.top_logprobs) if self._options.top_logprobs else ()
        return Pick(token, log_probability(logits, token, self._room), top)

    def _process(self, logits: Logits, allowed: NDArray[np.bool_] | None = None) -> Logits:
        """Repetition penalty, suppressed tokens, those not allowed; `logits` itself when none applies."""
        penalty = self._options.repetition_penalty
        if penalty == 1.0 and not self._suppressed.size and allowed is None:
            return logits
        scores = logits.copy()
        if penalty != 1.0:
            seen = scores[self._penalised]
            with np.errstate(over="ignore"):  # `pick` looks at what came of it
                scores[self._penalised] = np.where(seen < 0, seen * np.float32(penalty), seen / np.float32(penalty))
        scores[self._suppressed] = -np.inf
        if allowed is not None:
            scores[~allowed] = -np.inf
        return scores


def _drawn(tokens: Ids, scores: Scores, uniform: float) -> int:
    """The token that a number from 0 to 1 falls to."""
    weights = np.cumsum(np.exp(scores))
    place = np.searchsorted(weights, uniform * weights[-1], side="right")
    return int(tokens[min(int(place), len(tokens) - 1)])


def _draw_unsure(scores: Logits, uniform: float, apart: float, options: GenerationOptions) -> bool:
    """Whether the draw could fall to another token if any two `scores` were up to `apart` closer or further apart."""
    apart /= options.temperature
    tokens, kept = candidates(scores, options)
    others = np.delete(scores.astype(np.float64), tokens)
    best = others.max() - scores.max() if others.size else -np.inf
    if best / options.temperature + apart >= kept.min():
        return True
    if options.top_p < 1.0:
        near = [replace(options, top_p=max(_shifted(options.top_p, by), _LEAST)) for by in (-apart, apart)]
        if len({candidates(scores, one)[0].size for one in near}) > 1:
            return True
    return len({_drawn(tokens, kept, _shifted(uniform, by)) for by in (-apart, apart)}) > 1


def _shifted(probability: float, by: float) -> float:
    """With the logarithm of its odds moved: the most that a sum of probabilities can change when logits differ by so
    much more or less."""
    if not 0.0 < probability < 1.0:
        return probability
    return 1.0 / (1.0 + (1.0 - probability) / probability * math.exp(min(-by, _STEEPEST)))


def _check_choice(highest: float) -> None:
    if highest == -np.inf:
        raise EdgeVLMError("suppress_tokens leaves no token to generate: suppress fewer")
    if not np.isfinite(highest):
        raise EdgeVLMError("repetition_penalty carries logits beyond all numbers: bring it closer to 1")


def candidates(scores: Logits, options: GenerationOptions) -> tuple[Ids, Scores]:
    """Tokens that temperature, top-k and top-p leave, in order of token id, with their scores after temperature, of
    which the highest is 0."""
    # The likeliest is brought to 0 first, so that no temperature can carry it to infinity and out of the draw.
    with np.errstate(over="ignore"):
        warmed: Scores = (scores.astype(np.float64) - scores.max()) / options.temperature
    tokens = np.flatnonzero(warmed > -np.inf)
    if 0 < options.top_k < tokens.size:
        least = np.partition(warmed, warmed.size - options.top_k)[warmed.size - options.top_k]
        tokens = np.flatnonzero(warmed >= least)
    if options.top_p < 1.0:
        tokens = np.sort(tokens[_nucleus(warmed[tokens], options.top_p)])
    return tokens, warmed[tokens]


def _nucleus(scores: Scores, top_p: float) -> Ids:
    """Indices of the likeliest scores whose probabilities add up to `top_p`: those where the cumulative probability,
    from the least likely on, exceeds 1 - top_p; at least one."""
    weights = np.exp(scores - scores.max())
    probabilities = weights / weights.sum()
    head: Ids = np.arange(scores.size)
    tail = 0.0
    if scores.size > _NUCLEUS:
        likeliest = np.argpartition(scores, scores.size - _NUCLEUS)[scores.size - _NUCLEUS :]
        mass = float(probabilities[likeliest].sum())
        if mass >= top_p:  # everything else together is within the part that top-p cuts off
            head, tail = likeliest, 1.0 - mass
    order = head[np.argsort(scores[head], kind="stable")]
    keep = tail + np.cumsum(probabilities[order]) > 1.0 - top_p
    keep[-1] = True
    return order[keep]


def log_probability(logits: Logits, token: int, room: Logits | None = None) -> float:
    """log-softmax of `logits` [vocab] at `token`. `room`: see `log_probabilities`."""
    return float(log_probabilities(logits, np.array([token]), room)[0])


def log_probabilities(logits: Logits, tokens: Ids, room: Logits | None = None) -> Scores:
    """log-softmax of `logits` [vocab] at `tokens` [n]. `room` [vocab] is overwritten: memory that is there already
    spares the system's pages, which take longer than the arithmetic."""
    top = logits.max()
    weights = np.subtract(logits, top, out=room)
    found: Scores = logits[tokens] - top - np.log(np.exp(weights, out=weights).sum(dtype=np.float64))
    return found


def likeliest(logits: Logits, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest tokens of `logits` [vocab] with their log-softmax; of equal ones, the lower id first."""
    count = min(count, logits.size)
    least = np.partition(logits, logits.size - count)[logits.size - count]
    found = np.flatnonzero(logits >= least)
    best = found[np.argsort(-logits[found], kind="stable")[:count]]
    return tuple(zip(best.tolist(), log_probabilities(logits, best).tolist(), strict=True))
