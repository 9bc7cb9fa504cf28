"""Runs as one HTML page that needs nothing beside itself: no network, no fonts, no other file.

    write_report(["runs/lora", "runs/full"], "comparison.html")

`reading` turns folders into plain values, `rescoring` adds what needs the texts, `charts` and `sections` say what
stands where, and `page` fills the template. Nothing here imports JAX.
"""

from jaxft.report.page import report_page, write_report
from jaxft.report.reading import read

__all__ = ["read", "report_page", "write_report"]
