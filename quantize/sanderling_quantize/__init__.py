"""From a policy checkpoint to a sealed bundle. Reads checkpoints as files, without the trainer."""

import os

# onnxruntime reads it when it is imported, by Optimum too: it would report to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
