"""`edgevlm compile`: a bundle's graphs become engines, ahead of time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevlm.terminal.output import emit_json, human_bytes, json_option, note, stdout_kept_clean, table
from edgevlm.terminal.types import FilePath, Whole

if TYPE_CHECKING:
    from edgevlm_export.compile.run import CompileReport


class ComputeCapabilities(click.ParamType[tuple[int, ...]]):
    """`86,89,120`, or `8.6,8.9,12.0`."""

    name = "sm"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        names = [part.strip().replace(".", "") for part in str(value).split(",")]
        if not all(name.isdecimal() for name in names):
            self.fail(f"{value!r} is not a list of compute capabilities: give 86, or 86,89,120.", param, ctx)
        return tuple(int(name) for name in names)


@click.command("compile", short_help="Compile a bundle to engines ahead of time.")
@click.argument("bundle", type=FilePath())
@click.option(
    "--target", required=True, metavar="NAME", help="tensorrt-rtx (needs no GPU) or tensorrt (on the device)."
)
@click.option(
    "--sm",
    "compute_capabilities",
    type=ComputeCapabilities(),
    metavar="N,N",
    help="GPUs to compile for, by compute capability. Default: 86,89,120; for tensorrt the one at hand.",
)
@click.option("--workspace", "workspace_mib", type=Whole(1), metavar="MIB", help="Scratch memory a kernel may ask for.")
@click.option(
    "--timing-cache",
    type=FilePath(dir_okay=False),
    metavar="FILE",
    help="Keep kernel timings here, so that the next build is faster (tensorrt only).",
)
@json_option
def command(
    bundle: Path,
    target: str,
    compute_capabilities: tuple[int, ...] | None,
    workspace_mib: int | None,
    timing_cache: Path | None,
    as_json: bool,
) -> None:
    """Compile the graphs of BUNDLE to engines for NVIDIA GPUs, and put them into the bundle.

    The bundle must have been exported for the same target (`edgevlm export --target`). With tensorrt-rtx one engine
    per graph serves all the GPUs named, and no GPU is needed to compile; the device finishes the job at its first run.
    With tensorrt the engines are for the GPU of this machine.

    Engines are recorded in the manifest with their digests; they run with `edgevlm run --engine`. A failure leaves the
    bundle as it was.

    \b
    Examples:
      edgevlm compile inspector-fp16 --target tensorrt-rtx
      edgevlm compile inspector-fp16 --target tensorrt-rtx --sm 86,89,120
      edgevlm compile inspector-fp16 --target tensorrt --workspace 2048 --timing-cache orin.cache
    """
    from edgevlm.terminal.progress import StageProgress
    from edgevlm_export.compile.options import CompileOptions
    from edgevlm_export.compile.run import compile_bundle

    options = CompileOptions(
        bundle=bundle,
        target=target,
        compute_capabilities=compute_capabilities or (),
        workspace_mib=workspace_mib,
        timing_cache=timing_cache,
    )
    with stdout_kept_clean(), StageProgress() as progress:
        report = compile_bundle(options, progress)
    if as_json:
        emit_json(replace(report, bundle=bundle))
    else:
        click.echo(_summary(report))
        note(f'Next, on a machine with such a GPU: edgevlm run {bundle} --engine {target} --image FILE --prompt "..."')


def _summary(report: CompileReport) -> str:
    rows = [("graph", "engine", "device memory", "profiles", "seconds")]
    rows += [
        (
            graph,
            human_bytes(engine.record.bytes),
            "not told" if engine.device_memory_bytes is None else human_bytes(engine.device_memory_bytes),
            ", ".join(profile.name for profile in engine.profiles) or "fixed shapes",
            f"{engine.seconds:.1f}",
        )
        for graph, engine in report.engines.items()
    ]
    gpus = ", ".join(f"{sm // 10}.{sm % 10}" for sm in report.compute_capabilities)
    title = f"{report.bundle}: {report.target} {report.module_version}, for compute capability {gpus}"
    return "\n".join([title, table(rows), f"{report.seconds:.1f} s"])
