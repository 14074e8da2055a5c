"""Which runs to train next: what each is worth to the decision, and a batch of them within a budget."""

from lawkit.design.proposal import Proposal, ProposedRun
from lawkit.design.propose import METHODS, propose_runs

__all__ = ["METHODS", "Proposal", "ProposedRun", "propose_runs"]
