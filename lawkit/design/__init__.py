"""Which runs to do next: what each is worth to the decision, and a batch of them within a budget."""

from lawkit.design._criteria import METHODS
from lawkit.design.proposal import Proposal, ProposedRun
from lawkit.design.propose import propose_runs
from lawkit.design.replaying import Trace, replay_study
from lawkit.design.start import start_rows, start_runs

__all__ = [
    "METHODS",
    "Proposal",
    "ProposedRun",
    "Trace",
    "propose_runs",
    "replay_study",
    "start_rows",
    "start_runs",
]
