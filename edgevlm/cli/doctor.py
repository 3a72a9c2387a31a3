"""`edgevlm doctor`: what is installed, what really loads, and what to install."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import click

from edgevlm.machine import PACKAGES, Memory, Processor, ProviderState, memory, package_versions, processor
from edgevlm.terminal.errors import CHECK_FAILED, install_line
from edgevlm.terminal.output import emit_json, human_bytes, json_option, table

Versions = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know. A `problem` keeps `edgevlm run` from working; anything else is something that could be had."""

    problem: bool
    """Whether `edgevlm run` cannot work because of it."""
    what: str
    """What was found."""
    do: str
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """This machine, and what is wrong or missing."""

    usable: bool
    """Whether `edgevlm run` can work here; the exit code is 1 when not."""
    python: str
    """Version of Python."""
    platform: str
    """Operating system, its version, and the architecture."""
    cpu: Processor
    """The processor."""
    memory_bytes: Memory
    """Main memory, in bytes."""
    packages: Versions
    """Version of each package that matters here; null where it is not installed."""
    providers: tuple[ProviderState, ...]
    """ONNX Runtime's execution providers."""
    findings: tuple[Finding, ...]
    """What is wrong, or missing."""


@click.command("doctor", short_help="Say what this machine can run, and what is missing.")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Say what is installed, which execution providers really load, and what to install for what is missing.

    Each provider is tried with a trivial graph in a process of its own: ONNX Runtime lists providers whose libraries
    are not on the machine, and would fall back to the CPU.

    Exits with 1 when `edgevlm run` cannot work here.

    \b
    Examples:
      edgevlm doctor
      edgevlm doctor --json
    """
    report = _report()
    if as_json:
        emit_json(report)
    else:
        click.echo(_as_text(report))
    context.exit(0 if report.usable else CHECK_FAILED)


def _report() -> DoctorReport:
    cpu, ram, versions = processor(), memory(), package_versions()
    providers = _providers(versions)
    findings = diagnose(versions, providers)
    return DoctorReport(
        usable=not any(finding.problem for finding in findings),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu,
        memory_bytes=ram,
        packages=versions,
        providers=providers,
        findings=findings,
    )


def _providers(versions: Versions) -> tuple[ProviderState, ...]:
    """What the providers are tried with is the runtime's own: a package of its that is missing is a finding."""
    try:
        from edgevlm.providers import probe_all
    except ModuleNotFoundError:
        if _missing(versions):
            return ()
        raise
    return probe_all()


def _missing(versions: Versions) -> list[str]:
    return [name for name in PACKAGES["runtime"] if versions[name] is None]


def diagnose(versions: Versions, providers: tuple[ProviderState, ...]) -> tuple[Finding, ...]:
    """What is wrong or missing, given the installed versions and the state of the providers."""
    missing = _missing(versions)
    findings = [Finding(True, f"{name} is not installed", install_line(name)) for name in missing]
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        findings.append(
            Finding(
                problem=True,
                what="onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files",
                do=f"uninstall both, then {install_line('onnxruntime')}",
            )
        )
    elif not versions["onnxruntime"] and not versions["onnxruntime-gpu"]:
        findings.append(Finding(True, "ONNX Runtime is not installed", install_line("onnxruntime")))
    elif not missing and not any(state.loads for state in providers):
        do = f"uninstall it, then {install_line('onnxruntime')}"
        findings.append(Finding(True, "ONNX Runtime is installed, and no execution provider loads", do))
    findings += [
        Finding(False, f"{state.name} is listed and does not load: {state.detail}", "install the driver and libraries")
        for state in providers
        if not state.loads
    ]
    if not versions["edgevlm-export"]:
        findings.append(
            Finding(False, "the exporter is not installed (a device needs none)", install_line("edgevlm_export"))
        )
    return tuple(findings)


def _as_text(report: DoctorReport) -> str:
    cpu, ram = report.cpu, report.memory_bytes
    features = "not told by this system" if cpu.features is None else ", ".join(cpu.features) or "none of note"
    machine = [
        ("system", f"{report.platform}, Python {report.python}"),
        ("processor", f"{cpu.name}: {cpu.physical_cores} physical cores, {cpu.usable_cores} usable threads"),
        ("instructions", features),
        ("memory", f"{human_bytes(ram.total)}, {human_bytes(ram.available)} available"),
    ]
    states = [(state.name, "loads" if state.loads else f"does not load: {state.detail}") for state in report.providers]
    lines = [
        "Machine",
        table(machine),
        "Packages",
        table([(name, version or "-") for name, version in report.packages.items()]),
        "Execution providers",
        table(states or [("none",)]),
        "Findings",
        *(f"  {'PROBLEM: ' if f.problem else ''}{f.what}\n    -> {f.do}" for f in report.findings),
    ]
    return "\n".join(lines if report.findings else [*lines, "  all is well"])
