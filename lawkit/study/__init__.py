"""Studies: the runs that a file asks for, the circle that chooses more of them, and the store that keeps them."""

from lawkit.study.runner import Summary, Watcher, run_study, study_status
from lawkit.study.spec import StudySpec, read_study
from lawkit.study.store import Store

__all__ = ["Store", "StudySpec", "Summary", "Watcher", "read_study", "run_study", "study_status"]
