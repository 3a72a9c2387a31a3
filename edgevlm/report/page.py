"""Render a template of `edgevlm/report/templates/`, with pictures embedded."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from edgevlm.report import charts
from edgevlm_runtime.images import LoadOptions, load_image

LONGEST_SIDE = 160
"""Pixels of an embedded picture."""


def render(template: str, **values: Any) -> str:
    """The page as text. Templates see `charts`, and every value is escaped."""
    environment = Environment(
        loader=PackageLoader("edgevlm.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["charts"] = charts
    environment.filters.update(percent=percent, number=number)
    return environment.get_template(template).render(**values)


def embed(image: Path | Image.Image, loading: LoadOptions) -> str:
    """A picture as a data address, small enough for a page of many. Raises `ImageError`."""
    small = load_image(image, loading).copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def percent(share: float | None) -> str:
    """0.987 as 98.7 %."""
    return "-" if share is None else f"{100 * share:.1f} %"


def number(value: float | None, digits: int = 1) -> str:
    """A figure with a fixed number of decimals."""
    return "-" if value is None else f"{value:,.{digits}f}"
