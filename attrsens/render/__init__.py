"""Files: heatmap PNGs, arrays, tables and the report. Imports no torch."""

from attrsens.render.writer import Writer

__all__ = ["Writer"]
