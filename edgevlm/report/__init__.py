"""Self-contained HTML pages: templates, inline SVG charts, pictures as data. Nothing is fetched when one is opened."""

from edgevlm.report.page import embed, render

__all__ = ["embed", "render"]
