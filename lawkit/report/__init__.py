"""Figures of a fit, of its best mixture and of a corpus; made by matplotlib (`pip install 'lawkit[report]'`)."""

from lawkit.report._files import save
from lawkit.report.corpus import domain_figure, length_figure, unigram_figure
from lawkit.report.fits import fit_figure
from lawkit.report.penalty import penalty_figure
from lawkit.report.residuals import residual_figure
from lawkit.report.weights import mixture_path_figure, weights_by_scale_figure

__all__ = [
    "domain_figure",
    "fit_figure",
    "length_figure",
    "mixture_path_figure",
    "penalty_figure",
    "residual_figure",
    "save",
    "unigram_figure",
    "weights_by_scale_figure",
]
