"""Several forward passes through the same layers side by side: each layer's weights are there once for all of them.

The passes are the model's own `forward`, unchanged, whatever it does between its layers: each runs in a thread that
stops before every layer and waits for its turn. Only one thread works at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from torch import nn

T = TypeVar("T")
_here = threading.local()


class _Abandoned(BaseException):
    """Ends a pass that nobody waits for any more; no `except Exception` on its way shall hold it."""


class _Pass(Generic[T]):
    """A function that stops and goes on, as a generator does, from however deep within."""

    def __init__(self, run: Callable[[], T]) -> None:
        self._run = run
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._abandoned = False
        self._error: BaseException | None = None
        self._result: list[T] = []
        self._thread = threading.Thread(target=self._main, daemon=True)

    def step(self) -> None:
        """Go on to the next stop, or to the end. Raises what the function raises."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._stopped.acquire()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Called from within."""
        self._stopped.release()
        self._go.acquire()
        if self._abandoned:
            raise _Abandoned

    def result(self) -> T:
        """What the function returned. Raises `RuntimeError` when it has not."""
        if not self._result:
            raise RuntimeError("a forward pass did not go through its layers one by one")
        return self._result[0]

    def abandon(self) -> None:
        """End it where it stands."""
        self._abandoned = True
        self._go.release()
        if self._thread.ident is not None:
            self._thread.join()

    def _main(self) -> None:
        _here.own = self
        try:
            self._result.append(self._run())
        except _Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 (`step` raises it again, in the thread that waits)
            self._error = error
        finally:
            self._stopped.release()


def in_step(
    layers: Sequence[nn.Module],
    runs: Sequence[Callable[[], T]],
    holding: Callable[[nn.Module], AbstractContextManager[Any]],
    advance: Callable[[int], None] = lambda _: None,
) -> list[T]:
    """What each of `runs` returns; all of them call every one of `layers` once, in this order.

    `holding(layer)` is entered while the passes go through a layer. `advance` is told how many layers are done.
    """
    passes = [_Pass(run) for run in runs]
    hooks = [layer.register_forward_pre_hook(lambda *_: _here.own.stop()) for layer in layers]
    try:
        for one in passes:
            one.step()
        for number, layer in enumerate(layers):
            advance(number)
            with holding(layer):
                for one in passes:
                    one.step()
        advance(len(layers))
        return [one.result() for one in passes]
    finally:
        for one in passes:
            one.abandon()
        for hook in hooks:
            hook.remove()
