"""Which execution providers really load: each is tried with a trivial graph, in a process of its own.

ONNX Runtime lists every provider it was compiled with, whether or not its libraries are on the machine, and falls
back to the CPU with a warning when one does not load. So a provider counts only when a session comes up with it and
the session may not place nodes elsewhere. A process of its own, because a bad driver can take the process down.
"""

from __future__ import annotations

import json
import re
import subprocess

from edgevlm.machine import ProviderState
from edgevlm_runtime import child

PROBE_SECONDS = 120

NOT_LOCAL = frozenset({"AzureExecutionProvider"})
"""Listed by the CPU package, and only a client of a remote service."""

_MISSING_LIBRARY = re.compile(r"([\w.+-]+): cannot open shared object file")
_LONGEST = 300

_LIST = "import json, onnxruntime; print(json.dumps(onnxruntime.get_available_providers()))"

# The model is y = Relu(x), x float32 [1], opset 13: small enough to be here, so that a device needs no onnx package.
_PROBE = """
import base64, sys
import numpy, onnxruntime
model = base64.b64decode(
    "CAg6MwoMCgF4EgF5IgRSZWx1EgFnWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDQ=="
)
provider = sys.argv[1]
options = onnxruntime.SessionOptions()
if provider != "CPUExecutionProvider":
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
session = onnxruntime.InferenceSession(model, options, providers=[provider])
if provider not in session.get_providers():
    sys.exit(f"did not load; the session runs on {', '.join(session.get_providers())}")
session.run(None, {"x": numpy.zeros(1, "float32")})
"""


def probe_all() -> tuple[ProviderState, ...]:
    """Try every provider the installed ONNX Runtime lists; empty when it cannot be imported at all."""
    listed = child.run(["-c", _LIST], PROBE_SECONDS)
    if listed.returncode:
        return ()
    names = json.loads(listed.stdout.strip().splitlines()[-1])
    return tuple(probe(name) for name in names if name not in NOT_LOCAL)


def probe(name: str) -> ProviderState:
    """Try one provider by ONNX Runtime's name for it."""
    try:
        done = child.run(["-c", _PROBE, name], PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return ProviderState(name, False, f"no answer in {PROBE_SECONDS} s")
    if done.returncode == 0:
        return ProviderState(name, True)
    return ProviderState(name, False, _reason(done.stderr) or f"the process ended with {done.returncode}")


def _reason(stderr: str) -> str:
    """Which library is missing, where that is the reason; or else the last line, without the logger's prefix."""
    missing = _MISSING_LIBRARY.search(stderr)
    if missing:
        return f"{missing.group(1)} is not on this machine, or not on the loader's path"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
