"""The float network behind a bundle of `write_bundle`, and the settings that both have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from sanderling_trainer.policy.checkpoint import NAMES, CheckpointMetadata
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from tests.support.bundles import KINDS, TEXT

ITEMS, DIM, SLOTS, POOL, EPSILON = 150, 16, 5, 20, 0.3
CONFIG = Config(dim=DIM, state=8, hidden=16, pool=POOL, slate=SLOTS, epsilon=EPSILON, newcomers=0.0)
METADATA = CheckpointMetadata("demo", 1, 0, KINDS, True, 0, 1, "0" * 64)


def float_network(bundle: Path) -> PolicyNetwork:
    """Return the network whose rounded vectors the bundle has."""
    policy = load_file(bundle / "policy.safetensors")
    network = PolicyNetwork(CONFIG, torch.zeros(ITEMS, TEXT), torch.empty(0, TEXT), len(KINDS))
    # What `write_bundle` draws first, before it rounds.
    vectors = np.random.default_rng(0).standard_normal((ITEMS, DIM)).astype(np.float32)
    with torch.no_grad():
        for name, tensor in policy.items():
            if name in NAMES:
                getattr(network, NAMES[name]).copy_(torch.from_numpy(tensor))
        network.decay_logit.copy_(torch.logit(torch.from_numpy(policy["state.decay"])))
        network.residual.copy_(torch.from_numpy(vectors))
        biases = load_file(bundle / "items.safetensors")["bias"]
        network.bias.copy_(torch.from_numpy(biases))
    return network.eval()
