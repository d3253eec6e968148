"""Off-policy evaluation of slates: the click rate that another policy would have had.

    propensities         a policy's probabilities of what was shown, and importance weights
    estimators           the estimators as formulas: arrays in, an array out, each with its source
    reward_model         cross-fitted predictions of clicks, for the estimators that need them
    aggregation          one pass over a log, block by block
    estimate             all estimators on one log, with intervals, diagnostics and refusals
    examination          how much each slot is looked at, from what was explored
    paired_difference    the candidate's clicks minus the active policy's, directly
    relative_difference  their ratio, with its error and the bounds on what the log never shows
    release_gate         ship, canary or hold, and why
    canary               the sequential test of a release on a few per cent of the devices
    sentence             the verdict in one sentence
    plausibility         which logged decisions an engine can have made, for learning too
    usable               which logged decisions can be judged
    report               from logged decisions to a JSON report

docs/MATH.md has the formulas. Independent of networks and training.
"""

from sanderling_trainer.evaluation.ope.aggregation import SlateLog
from sanderling_trainer.evaluation.ope.estimate import Estimate, difference, estimate_all
from sanderling_trainer.evaluation.ope.estimators import WEIGHT_CAP
from sanderling_trainer.evaluation.ope.examination import Examination, fit_examination
from sanderling_trainer.evaluation.ope.paired_difference import (
    Orders,
    Slates,
    Sums,
    sums_by_unit,
)
from sanderling_trainer.evaluation.ope.plausibility import ActivePolicy, plausible
from sanderling_trainer.evaluation.ope.propensities import (
    Propensities,
    examined_by_rank,
    importance_weights,
    max_weights,
    sequential_propensities,
    unsupported_mass,
)
from sanderling_trainer.evaluation.ope.relative_difference import (
    RelativeDifference,
    relative_difference,
)
from sanderling_trainer.evaluation.ope.release_gate import (
    CANARY,
    HOLD,
    SHIP,
    GateResult,
    GateThresholds,
    gate,
)
from sanderling_trainer.evaluation.ope.report import evaluate_candidate, judge
from sanderling_trainer.evaluation.ope.reward_model import (
    Predictions,
    RewardExamples,
    RewardModel,
    expected_rewards,
    fit_reward_model,
)
from sanderling_trainer.evaluation.ope.usable import regular_epsilon, usable

__all__ = [
    "CANARY",
    "HOLD",
    "SHIP",
    "WEIGHT_CAP",
    "ActivePolicy",
    "Estimate",
    "Examination",
    "GateResult",
    "GateThresholds",
    "Orders",
    "Predictions",
    "Propensities",
    "RelativeDifference",
    "RewardExamples",
    "RewardModel",
    "SlateLog",
    "Slates",
    "Sums",
    "difference",
    "estimate_all",
    "evaluate_candidate",
    "examined_by_rank",
    "expected_rewards",
    "fit_examination",
    "fit_reward_model",
    "gate",
    "importance_weights",
    "judge",
    "max_weights",
    "plausible",
    "regular_epsilon",
    "relative_difference",
    "sequential_propensities",
    "sums_by_unit",
    "unsupported_mass",
    "usable",
]
