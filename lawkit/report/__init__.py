"""Figures of a fit and of its best mixture; made by matplotlib (`pip install 'lawkit[report]'`)."""

from lawkit.report._files import save
from lawkit.report.fits import fit_figure
from lawkit.report.penalty import penalty_figure
from lawkit.report.residuals import residual_figure
from lawkit.report.weights import mixture_path_figure, weights_by_scale_figure

__all__ = [
    "fit_figure",
    "mixture_path_figure",
    "penalty_figure",
    "residual_figure",
    "save",
    "weights_by_scale_figure",
]
