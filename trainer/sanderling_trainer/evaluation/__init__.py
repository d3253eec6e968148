"""Ranking metrics, off-policy estimators, baselines and replays. Refuses to know how a policy was learned."""
