"""Figures of a fit and of its best mixture; made by matplotlib (`pip install 'lawkit[report]'`)."""

from lawkit.report.fit_figures import fit_figure

__all__ = ["fit_figure"]
