"""A process that asks: `python -m edgevlm.bulk.worker`, driven by `processes.AskerProcess`.

One line of JSON each. In comes first a `Task`, then any number of `Group`; out goes `{"ready": true}`, then the results
of each group, or `error` instead, and the process ends. Nothing else reaches standard output: what libraries print goes
to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import msgspec

from edgevlm.bulk.asking import Asker, Task
from edgevlm.bulk.rows import Group, encode
from edgevlm_runtime.errors import EdgeVLMError

READY = {"ready": True}


def main() -> int:
    """Answer until the input ends. Errors the user can mend are sent; any other ends the process with a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which closes our input
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(message: Any) -> None:
        channel.write(encode(message))
        channel.flush()

    try:
        asker = Asker(msgspec.json.decode(sys.stdin.readline(), type=Task))
        send(READY)
        for line in sys.stdin:
            send({"results": asker.answers(msgspec.json.decode(line, type=Group))})
    except EdgeVLMError as error:
        send({"error": str(error)})
    except ModuleNotFoundError as error:
        send({"error": str(error), "missing": error.name})
    except MemoryError:
        send({"error": "not enough memory to load the bundle once more: take fewer --workers"})
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more
    return 0


if __name__ == "__main__":
    sys.exit(main())
