"""A FAKE GPU: host memory with book-keeping, in the place of `cuda.bindings.runtime`. Nothing here is NVIDIA's."""

from __future__ import annotations

import ctypes
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

SM = 89
OUT_OF_MEMORY, NO_DRIVER = 2, 35


class FakeCuda(ModuleType):
    """Stands in for `cuda.bindings.runtime`: every call returns (error, values...)."""

    cudaStreamNonBlocking = 1  # noqa: N815
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76)  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self, sm: int = SM, gpus: int = 1, limit: int | None = None, driver: bool = True) -> None:
        super().__init__("cuda.bindings.runtime")
        self.sm, self.gpus, self.limit, self.driver = sm, gpus, limit, driver
        self.memory: dict[int, np.ndarray] = {}
        self.copied: Counter[str] = Counter()
        """Bytes by direction."""
        self.calls: Counter[str] = Counter()
        self.recording: list[Any] | None = None
        self.capture_fails = False

    def cudaGetDeviceCount(self):
        return (0, self.gpus) if self.driver else (NO_DRIVER, 0)

    def cudaGetErrorString(self, error):
        names = {OUT_OF_MEMORY: b"out of memory", NO_DRIVER: b"CUDA driver version is insufficient"}
        return 0, names.get(int(error), b"unknown error")

    def cudaDeviceGetAttribute(self, attribute, device):
        return 0, self.sm // 10 if attribute == 75 else self.sm % 10

    def cudaGetDeviceProperties(self, device):
        return 0, SimpleNamespace(name=b"Fake GPU\0")

    def cudaStreamCreateWithFlags(self, flags):
        return 0, 4711

    def cudaMalloc(self, nbytes):
        self.calls["malloc"] += 1
        if self.limit is not None and nbytes > self.limit:
            return OUT_OF_MEMORY, 0
        block = np.full(nbytes, 0xAB, np.uint8)  # fresh memory is not zero
        self.memory[block.ctypes.data] = block
        return 0, block.ctypes.data

    def cudaFree(self, address):
        del self.memory[address]
        return (0,)

    def cudaMemsetAsync(self, address, value, nbytes, stream):
        self.block(address, nbytes)[:] = value
        return (0,)

    def cudaMemcpyAsync(self, target, source, nbytes, kind, stream):
        self.block(target if kind == "up" else source, nbytes)  # the device's side must be device memory
        assert self.recording is None, "a copy while a CUDA graph is recorded"
        ctypes.memmove(target, source, nbytes)
        self.copied[kind] += nbytes
        return (0,)

    def cudaStreamSynchronize(self, stream):
        self.calls["synchronize"] += 1
        return (0,)

    def cudaStreamBeginCapture(self, stream, mode):
        self.recording = []
        return (0,)

    def cudaStreamEndCapture(self, stream):
        recorded, self.recording = self.recording, None
        return (999, None) if self.capture_fails else (0, recorded)

    def cudaGraphInstantiate(self, graph, flags):
        self.calls["instantiate"] += 1
        return 0, graph

    def cudaGraphDestroy(self, graph):
        return (0,)

    def cudaGraphExecDestroy(self, graph):
        return (0,)

    def cudaGraphLaunch(self, graph, stream):
        self.calls["launch"] += 1
        for run in graph:
            run()
        return (0,)

    def block(self, address: int, nbytes: int) -> np.ndarray:
        """Bytes of device memory; fails for an address that is none, as a GPU would."""
        for start, held in self.memory.items():
            if start <= address and address + nbytes <= start + held.nbytes:
                return held[address - start : address - start + nbytes]
        raise AssertionError(f"not device memory: {address:#x}, {nbytes} bytes")

    def tensor(self, address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Device memory as an array."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self.block(address, nbytes).view(dtype).reshape(shape)
