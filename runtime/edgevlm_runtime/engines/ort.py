"""ONNX Runtime: the engine for CPUs, and for accelerators through its execution providers.

Asking for a provider that onnxruntime cannot load is an error here; onnxruntime itself would warn and use the CPU.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgevlm_runtime.bundle.blocks import widen
from edgevlm_runtime.engines.assigned.words import no_words
from edgevlm_runtime.engines.base import AS_ASKED, Graph, GraphRequest
from edgevlm_runtime.engines.cores import int8_overflows, told_threads
from edgevlm_runtime.engines.ort_graph import OrtGraph
from edgevlm_runtime.engines.ort_library import ort
from edgevlm_runtime.engines.placement import RECORD, check_placement
from edgevlm_runtime.engines.providers import AUTO, CPU, DEVICES, choose, missing
from edgevlm_runtime.errors import BundleError, ProviderError, one_line
from edgevlm_runtime.options import RuntimeOptions

log = logging.getLogger(__name__)

WHOLE_ATTENTION = "ORT_GQA_DISABLE_FLASH_ATTENTION"
"""Environment variable that GroupQueryAttention's kernel for processors reads when a session is made: 1 computes a
chunk's attention scores whole rather than in tiles, which made prompts 18 to 29 % faster where we measured. Set
before, it is left as it is."""
MOST_SCORES = 2**26
"""Computed whole, scores are reserved for the whole KV cache, 4 bytes each: more than these are left to the tiles."""
SPIN_MICROSECONDS = "1000"
"""How long a graph's threads wait busily for more work; from one token to the next it is less than half of that."""
_environment = threading.Lock()

_SILENT = 4  # onnxruntime's "fatal": its messages also arrive as exceptions, which is where users should see them


def make_engine(options: RuntimeOptions) -> OrtEngine:
    """The engine for these options. Raises `ProviderError` when the provider is not in the installed onnxruntime."""
    no_words(options.engine)
    ort.set_default_logger_severity(_SILENT)
    choice = choose(ort, options.provider)
    log.info("%s: %s", choice.provider, choice.reason)
    threads = told_threads(options.threads)
    return OrtEngine(choice.provider, threads, choice.reason, automatic=options.provider.lower() == AUTO)


class OrtEngine:
    """Loads graphs as onnxruntime sessions on one provider (and the CPU, for what the provider cannot run)."""

    def __init__(self, provider: str, threads: int, reason: str = AS_ASKED, *, automatic: bool = False) -> None:
        self.provider = provider
        self.reason = reason
        self.automatic = automatic
        self.threads = threads
        self.identity = f"onnxruntime {ort.__version__} {provider}"

    def fallback(self, error: ProviderError) -> OrtEngine | None:
        """See `Engine.fallback`: the CPU, where "auto" chose this provider by a trivial graph."""
        if not self.automatic or self.provider == CPU:
            return None
        return OrtEngine(CPU, self.threads, f"auto: {error}", automatic=True)

    def load(self, request: GraphRequest) -> Graph:
        """See `Engine.load`. External weights are memory-mapped by onnxruntime."""
        path, scores = request.path, request.attention_scores
        if not path.is_file():
            raise BundleError(f"no graph file: {path}: copy or export the bundle again")
        _check_name(path)
        providers = [self.provider] if self.provider == CPU else [self.provider, CPU]
        options = self._session_options(request.repeated)
        made = self._widened(request)  # onnxruntime reads them until the session is there
        if made:
            options.add_external_initializers(list(made), list(made.values()))
        try:
            with _attention(whole=scores is not None and scores <= MOST_SCORES):
                session = ort.InferenceSession(str(path), options, providers=providers)
        except ort.capi.onnxruntime_pybind11_state.NotImplemented as error:
            raise ProviderError(
                f"{self.provider} lacks an operator of {path}: {one_line(error)}: export with another precision, or "
                "choose another --provider"
            ) from error
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise BundleError(f"onnxruntime cannot load {path}: {one_line(error)}") from error
        active = session.get_providers()
        if self.provider not in active:
            raise ProviderError(missing(ort, self.provider, f"it did not load, onnxruntime fell back to {active[0]}"))
        if self.provider != CPU:
            check_placement(session, self.provider, path.name)
        log.debug("loaded %s on %s, %d threads", path.name, active[0], self.threads)
        return OrtGraph(session, path.name, DEVICES.get(self.provider, "cpu"))

    @property
    def widens(self) -> bool:
        """See `Engine`: the product of what is widened runs on a processor alone."""
        return self.provider == CPU

    def _widened(self, request: GraphRequest) -> dict[str, Any]:
        """Initializers that are made now, by name. Raises `BundleError` where they cannot be."""
        made: dict[str, Any] = {}
        for name, (quants, scales) in widen(request.info.widened, request.bundle.file, self.threads).items():
            made[f"{name}.int8"] = ort.OrtValue.ortvalue_from_numpy(quants)
            made[f"{name}.scales"] = ort.OrtValue.ortvalue_from_numpy(scales)
        return made

    def _session_options(self, repeated: bool) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        # Whatever a file is called: its other format is not one whose files were looked at (`bundle.graph_files`).
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # Each graph has its own threads: those of one must not wait busily while another runs. A decoder's may, but no
        # longer than from one token to the next: onnxruntime's 30 ms took half the processor from the next image.
        options.add_session_config_entry("session.force_spinning_stop", "0" if repeated else "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
        if int8_overflows():  # three times slower where it is not needed
            options.add_session_config_entry("session.x64quantprecision", "1")
        # What a graph widens to floating point before a product is multiplied so, not in 8 bits.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        if self.provider != CPU:
            options.add_session_config_entry(RECORD, "1")
        return options


def _check_name(path: Path) -> None:
    """onnxruntime takes names as text and hands them to the system as UTF-8, whatever the locale.

    Raises `ProviderError`: it is this machine's setting that is in the way, not the bundle.
    """
    if os.fsencode(path) != str(path).encode("utf-8", errors="replace"):
        raise ProviderError(
            f"onnxruntime opens files by names in UTF-8 only, and this is not one: {path}: "
            "set LC_ALL=C.UTF-8, or give the folder another name"
        )


@contextmanager
def _attention(whole: bool) -> Iterator[None]:
    """`WHOLE_ATTENTION` for the session made within, one at a time."""
    with _environment:
        own = whole and WHOLE_ATTENTION not in os.environ
        if own:
            os.environ[WHOLE_ATTENTION] = "1"
        try:
            yield
        finally:
            if own:
                os.environ.pop(WHOLE_ATTENTION, None)
