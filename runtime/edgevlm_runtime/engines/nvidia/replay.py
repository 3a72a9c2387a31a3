"""A decoding step as one CUDA graph: recorded once, replayed while buffers and shapes stay where they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

from edgevlm_runtime.engines.nvidia.cuda import Device
from edgevlm_runtime.errors import EdgeVLMError

log = logging.getLogger(__name__)


class Replay:
    """Runs `enqueue` itself the first time, records it the second time, and replays the recording from then on.

    The first, plain run lets the library do what may not be recorded (compile kernels, allocate). Where recording
    fails, it says so once in the log and goes on without.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._key: Hashable = None
        self._recorded: Any = None
        self._off = False

    def run(self, key: Hashable, context: Any, enqueue: Callable[[], None]) -> None:
        """`key` stands for all addresses and shapes: a recording is of one key only."""
        if self._off or not context.is_stream_capturable(self._device.stream):
            enqueue()
        elif key != self._key:
            self._key = key
            self._forget()
            enqueue()
        else:
            if self._recorded is None:
                self._record(enqueue)
            if self._recorded is None:
                enqueue()
            else:
                self._device.call("cudaGraphLaunch", self._recorded, self._device.stream)

    def _record(self, enqueue: Callable[[], None]) -> None:
        runtime = self._device.runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._device.call("cudaStreamBeginCapture", self._device.stream, mode)
        try:
            enqueue()
            graph = self._device.call("cudaStreamEndCapture", self._device.stream)
            self._recorded = self._device.call("cudaGraphInstantiate", graph, 0)
            self._device.call("cudaGraphDestroy", graph)
        except EdgeVLMError as error:
            log.warning("decoding runs without a CUDA graph: %s", error)
            runtime.cudaStreamEndCapture(self._device.stream)  # a broken capture must still be ended
            self._off = True

    def _forget(self) -> None:
        if self._recorded is not None:
            self._device.call("cudaGraphExecDestroy", self._recorded)
            self._recorded = None
