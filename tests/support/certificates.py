"""Certificates signed by themselves, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.needed import program


def certificate(folder: Path, name: str, *, host: str = "localhost", uri: str = "") -> tuple[Path, Path]:
    """NAME.crt for a host, and for an application's URI where there is one, and its key NAME.key."""
    binary = program("openssl", "openssl")
    names = f"subjectAltName=DNS:{host}" + (f",URI:{uri}" if uri else "")
    usage = "keyUsage=critical,digitalSignature,nonRepudiation,keyEncipherment,dataEncipherment,keyCertSign"
    command = [binary, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={host}"]
    for extension in (names, usage, "extendedKeyUsage=clientAuth,serverAuth"):
        command += ["-addext", extension]
    command += ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / f"{name}.crt", folder / f"{name}.key"
