"""What is exported, and how: the checkpoint's folder, then the plan."""

from __future__ import annotations

from dataclasses import replace

from edgevlm_export import chat_templates
from edgevlm_export.checkpoints import checkpoint
from edgevlm_export.planning.plan import plan_export
from edgevlm_export.steps.prefix import prompt_prefix, with_system_prompt
from edgevlm_export.steps.state import State
from edgevlm_export.streaming.material import read_folder


def locate(state: State) -> State:
    """The checkpoint, and a caller's folder to calibrate with. Raises `CheckpointError` and `ExportError`."""
    calibrate = state.options.calibrate
    material = state.material if calibrate is None else read_folder(calibrate)
    return replace(state, checkpoint=checkpoint.locate(state.options.model), material=material)


def plan(state: State) -> State:
    """Everything that is known before a weight is read. Raises what `plan_export` raises."""
    options = state.options
    template = None if options.chat_template is None else chat_templates.resolve(options.chat_template)
    planned = plan_export(
        state.checkpoint, options.plan, options.max_context, state.progress, options.target, template, options.images
    )
    planned = with_system_prompt(planned, options.system_prompt)
    return replace(state, planned=planned, prefix=prompt_prefix(planned))
