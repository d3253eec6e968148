"""The candidate of one night: renewed, taught, and judged exactly as it would ship."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.jobs.candidate import judge_candidate
from sanderling_trainer.jobs.learner import learn
from sanderling_trainer.jobs.night_inputs import Encoder, NightInputs
from sanderling_trainer.policy.checkpoint import Checkpoint, CheckpointMetadata
from sanderling_trainer.policy.contexts import context_vectors
from sanderling_trainer.policy.living_catalog import hide_new_items
from sanderling_trainer.policy.model.device import torch_device
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.context import TrainingContext

MAX_GAP_DAYS = 28


def renewed_candidate(night: NightInputs) -> tuple[Checkpoint, str]:
    """Return a candidate with the popularity and impressions that are new, and what was done.

    The popularity counts of the checkpoint are continued, unless what is new begins more than 28
    days after their end.
    """
    renewed, lessons = night.renewed, night.lessons
    metadata = _next_metadata(night)
    network = _copy(renewed.network)
    popularity = renewed.popularity
    done = f"unchanged: the log begins over {MAX_GAP_DAYS} days after it ends"
    if metadata.log_from - renewed.metadata.log_to <= MAX_GAP_DAYS * DAY:
        done = "continued"
        if any(len(part) > part.n_replayed for part in lessons.new_parts):
            counts = PopularityHistory.of_histories(lessons.new_parts, len(renewed.catalog))
            popularity = popularity.plus(counts)
        network.set_popularity_day(popularity, metadata.log_to // DAY)

    new = lessons.teaching.take(lessons.is_new)
    candidate = replace(
        renewed,
        network=network,
        config=replace(renewed.config, seed=night.options.seed),
        metadata=metadata,
        popularity=popularity,
        exposure=renewed.exposure.plus(new.items[new.judged]),
        watermark=lessons.watermark,
    )
    return candidate, done


def _copy(network: PolicyNetwork) -> PolicyNetwork:
    """Return a copy that shares the text vectors, which may take most of the memory."""
    return copy.deepcopy(network, {id(network.text): network.text})


def _next_metadata(night: NightInputs) -> CheckpointMetadata:
    metadata, summary = night.active.metadata, night.log.summary
    begin, end = night.lessons.time_range() or (metadata.log_from, metadata.log_to)
    return replace(
        metadata,
        release=metadata.release + 1,
        parent=metadata.release,
        log_from=begin,
        log_to=max(end, metadata.log_to),
        data_sha256=night.fingerprint,
        devices_from=metadata.devices_from or summary.earliest // 1000,
        explorations=night.active.explorations(),
    )


def teach(night: NightInputs, candidate: Checkpoint) -> dict[str, Any]:
    """Train the candidate's network in place on all that may teach; return metrics."""
    device_contexts = night.log.examples.contexts
    contexts = [device_contexts]
    if night.past.contexts:
        encode = Encoder(night.source, candidate.config.max_tokens, night.options.device)
        past, config = night.past, candidate.config
        contexts.append(
            context_vectors(
                past.contexts,
                past.context_values,
                candidate.context_features,
                lambda texts: encode(config.query_texts(texts)),
            )
        )

    network = candidate.network
    network.contexts = torch.from_numpy(np.concatenate(contexts))
    network.to(torch_device(night.options.device))
    context = TrainingContext(
        network,
        [*night.lessons.histories, *night.past.numbered_from(len(device_contexts))],
        candidate.config,
        candidate.metadata.repeats,
        candidate.popularity,
    )
    return learn(context, night.lessons.teaching)


def judge(night: NightInputs, candidate: Checkpoint) -> dict[str, Any]:
    """Return the off-policy report of the candidate beside the active release."""
    network = _copy(night.renewed.network)
    hide_new_items(network, night.change)
    network.contexts = torch.from_numpy(night.log.examples.contexts)
    network.to(candidate.network.bias.device)

    histories, repeats = night.log.examples.histories, candidate.metadata.repeats
    active = TrainingContext(network, histories, night.active.config, repeats)
    shipped = TrainingContext(candidate.network, histories, candidate.config, repeats)
    return judge_candidate(active, shipped, night.lessons.judging, night.active.metadata)
