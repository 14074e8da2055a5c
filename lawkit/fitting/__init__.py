"""Point fits: least squares and maximum a posteriori, with what a reader needs to doubt them."""

from lawkit.fitting.api import fit
from lawkit.fitting.prediction import Prediction
from lawkit.fitting.result import Fit
from lawkit.fitting.storage import load_fit

__all__ = ["Fit", "Prediction", "fit", "load_fit"]
