"""A process that writes to a spool until it is killed, and says what it has written; forked where all is imported."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

from edgevlm.watch.sinks.spooling.spool import Spool

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.spool_writer"])


def write(folder: Path, said: Connection) -> None:
    """Say "w NUMBER" for what is written, "a NUMBER" for what is acknowledged."""
    output, spool = said.fileno(), Spool(folder, 1 << 20)
    while True:
        number = spool.append(b"payload " + b"y" * (spool.next * 37 % 900))
        os.write(output, b"w %d\n" % number)
        if number % 3 == 0 and (entry := spool.read(spool.next)):
            spool.acknowledge(entry[0])
            os.write(output, b"a %d\n" % entry[0])
        if number % 7 == 0:
            spool.save()
