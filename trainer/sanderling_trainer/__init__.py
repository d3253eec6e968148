"""Trains and evaluates policies, receives events, retrains, and publishes releases."""

import os

# onnxruntime reads it when it is imported, by Optimum too: it would report to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
