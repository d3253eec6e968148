"""Off-policy evaluation of slates: the click rate that another policy would have had.

    plausibility   which logged decisions an engine can have made
    propensities   a policy's probabilities of what was shown, and importance weights
    estimators     the estimators as formulas: arrays in, an array out, each with its source
    reward_model   cross-fitted predictions of clicks, for the estimators that need them
    aggregation    one pass over a log, block by block
    estimate       all estimators on one log, with intervals, diagnostics and refusals
    release_gate   whether a candidate may be released, and why not
    report         from logged decisions to a JSON report

docs/MATH.md has the formulas. Independent of networks and training.
"""

from sanderling_trainer.evaluation.ope.aggregation import SlateLog
from sanderling_trainer.evaluation.ope.estimate import Estimate, difference, estimate_all
from sanderling_trainer.evaluation.ope.estimators import WEIGHT_CAP
from sanderling_trainer.evaluation.ope.plausibility import ActivePolicy, plausible
from sanderling_trainer.evaluation.ope.propensities import (
    Propensities,
    importance_weights,
    max_weights,
    sequential_propensities,
    unsupported_mass,
)
from sanderling_trainer.evaluation.ope.release_gate import GateResult, GateThresholds, gate
from sanderling_trainer.evaluation.ope.report import (
    Candidate,
    evaluate_candidate,
)
from sanderling_trainer.evaluation.ope.reward_model import (
    Predictions,
    RewardExamples,
    RewardModel,
    expected_rewards,
    fit_reward_model,
)

__all__ = [
    "WEIGHT_CAP",
    "ActivePolicy",
    "Candidate",
    "Estimate",
    "GateResult",
    "GateThresholds",
    "Predictions",
    "Propensities",
    "RewardExamples",
    "RewardModel",
    "SlateLog",
    "difference",
    "estimate_all",
    "evaluate_candidate",
    "expected_rewards",
    "fit_reward_model",
    "gate",
    "importance_weights",
    "max_weights",
    "plausible",
    "sequential_propensities",
    "unsupported_mass",
]
