"""A real broker, mosquitto, on a free port: started, stopped and started again; and subscribers that share nothing
with what they check: `mosquitto_sub`, which comes with it."""

from __future__ import annotations

import getpass
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.needed import program
from tests.support.polling import free_port, listens, until


@dataclass
class Mosquitto:
    """A broker of one test."""

    folder: Path
    options: tuple[str, ...] = ("allow_anonymous true",)
    """Lines of its configuration, beside listener and persistence."""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it keeps sessions and retained messages over a stop."""
        binary = program("mosquitto", "mosquitto")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o777)  # as root it becomes the user mosquitto
        lines = [f"listener {self.port} 127.0.0.1", "persistence true", f"persistence_location {self.folder}/"]
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join([*lines, f"user {_user()}", "autosave_interval 1", *self.options, ""]), "utf-8")
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen([binary, "-c", str(config)], stdout=log, stderr=log)
        log.close()
        until(lambda: self._ended() or listens(self.port), "mosquitto listens")
        assert not self._ended(), (self.folder / "log").read_text("utf-8")

    def stop(self) -> None:
        """Stop it in order: what it keeps is written."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None


class Subscriber:
    """`mosquitto_sub` with a session that the broker keeps, QoS 1; what it gets is written to a file."""

    def __init__(
        self, broker: Mosquitto, topic: str, *arguments: str, name: str = "watcher", keep: bool = True
    ) -> None:
        binary = program("mosquitto_sub", "mosquitto-clients")
        session = ["-c", "-i", name] if keep else []
        self._command = [binary, "-h", "127.0.0.1", "-p", str(broker.port), "-t", topic, "-q", "1", *session]
        self._command += ["-F", "%r %t %x", *arguments]
        self._file = broker.folder / f"{name}.received"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Subscribe. It comes back by itself when the broker was away."""
        with self._file.open("ab") as file:
            self._process = subprocess.Popen(self._command, stdout=file)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def lines(self) -> list[tuple[bool, str, bytes]]:
        """Everything so far: whether it was retained, topic, payload."""
        whole = [line for line in self._file.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
        parts = [line.rstrip("\n").split(" ", 2) for line in whole]
        return [(kept == "1", topic, bytes.fromhex(payload)) for kept, topic, payload in parts]

    def payloads(self, ending: str) -> list[str]:
        """Payloads of topics that end so, as text."""
        return [payload.decode("utf-8") for _, topic, payload in self.lines() if topic.endswith(ending)]

    def records(self, ending: str = "/record") -> list[dict[str, Any]]:
        """The JSON of them."""
        return [json.loads(payload) for payload in self.payloads(ending)]


def retained(broker: Mosquitto, topic: str, *arguments: str) -> str:
    """What the broker keeps for one topic; empty where it keeps nothing."""
    binary = program("mosquitto_sub", "mosquitto-clients")
    command = [binary, "-h", "127.0.0.1", "-p", str(broker.port), "-t", topic, "-C", "1", "-W", "2", *arguments]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return done.stdout.decode("utf-8", "replace").removesuffix("\n")


def publish(broker: Mosquitto, topic: str, payload: str, *arguments: str) -> None:
    """Publish with QoS 1 by `mosquitto_pub`."""
    binary = program("mosquitto_pub", "mosquitto-clients")
    command = [binary, "-h", "127.0.0.1", "-p", str(broker.port), "-q", "1", "-t", topic, "-m", payload, *arguments]
    subprocess.run(command, check=True, timeout=60)


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Mosquitto]:
    """A broker, stopped at the end."""
    broker = Mosquitto(folder, options) if options else Mosquitto(folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def _user() -> str:
    return getpass.getuser()
