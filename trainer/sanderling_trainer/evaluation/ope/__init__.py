"""Off-policy judgement of slates: what would the click rate have been, had another policy chosen?

    propensities   a policy's probabilities of what was shown, and the weights between two policies
    estimators     the estimators, bare: arrays in, an array out, a citation each
    reward_model   cross-fitted predictions of clicks, for the estimators that need them
    sums           one pass over a log, block by block
    estimates      all estimators on one log, with intervals, weights' health, and refusals
    gate           whether a candidate may be released, and why not
    report         from logged decisions to plain data

Refuses to know networks and how policies were learned.
"""

from sanderling_trainer.evaluation.ope.aggregation import Slates
from sanderling_trainer.evaluation.ope.estimate import Estimate, difference, estimates
from sanderling_trainer.evaluation.ope.estimators import CAP
from sanderling_trainer.evaluation.ope.propensities import (
    Propensities,
    largest_weights,
    sequential_propensities,
    unsupported_mass,
    weights,
)
from sanderling_trainer.evaluation.ope.release_gate import Thresholds, Verdict, gate
from sanderling_trainer.evaluation.ope.report import Candidate, ServingPolicy, report
from sanderling_trainer.evaluation.ope.reward_model import (
    Predictions,
    RewardModel,
    expected_rewards,
    fit,
)

__all__ = [
    "CAP",
    "Candidate",
    "Estimate",
    "Predictions",
    "Propensities",
    "RewardModel",
    "ServingPolicy",
    "Slates",
    "Thresholds",
    "Verdict",
    "difference",
    "estimates",
    "expected_rewards",
    "fit",
    "gate",
    "largest_weights",
    "report",
    "sequential_propensities",
    "unsupported_mass",
    "weights",
]
