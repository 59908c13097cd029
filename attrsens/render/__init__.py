"""Files: heatmap PNGs, arrays, tables and the report. Imports no torch."""

from attrsens.render.writer import Writer, check_formats, write_file

__all__ = ["Writer", "check_formats", "write_file"]
