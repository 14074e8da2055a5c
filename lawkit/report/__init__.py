"""Figures of a fit and of its best mixture; made by matplotlib (`pip install 'lawkit[report]'`)."""

from lawkit.report._files import save
from lawkit.report.fit_figures import fit_figure
from lawkit.report.mixture_figures import penalty_figure, weights_by_scale_figure
from lawkit.report.residual_figure import residual_figure

__all__ = ["fit_figure", "penalty_figure", "residual_figure", "save", "weights_by_scale_figure"]
