"""One report per study: a self-contained HTML page, and the same in Markdown."""

from __future__ import annotations

from ablate.learn.report.write import write_report

__all__ = ["write_report"]
