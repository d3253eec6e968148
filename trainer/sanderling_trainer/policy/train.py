"""`train`: from items and interactions to a policy checkpoint.

Encodes the texts, chooses the settings on inner windows of the log, measures a policy on the part
held out, and fits the policy that ships on everything.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling_quantize.readability import Readability, measure
from sanderling_quantize.threads import use_threads
from sanderling_trainer.data.tables import Catalog, Interactions
from sanderling_trainer.data.time_split import content_hash
from sanderling_trainer.evaluation.inner_windows import Cut, check_liked, cut_after
from sanderling_trainer.policy import checkpoint, choose_settings, ranking_report
from sanderling_trainer.policy.checkpoint import Checkpoint, CheckpointMetadata
from sanderling_trainer.policy.choose_settings import Choice
from sanderling_trainer.policy.contexts import context_vectors, fit_context_features
from sanderling_trainer.policy.exposure import Exposure
from sanderling_trainer.policy.feature_schema import attribute_table, fit_features
from sanderling_trainer.policy.fit import (
    Fit,
    FitOptions,
    TextVectors,
    TrainingPart,
    fit_policy,
)
from sanderling_trainer.policy.holdout_queries import queries_of
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.device import torch_device
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.language_model_files import check_readable, with_prefixes
from sanderling_trainer.policy.train_options import TrainOptions
from sanderling_trainer.policy.training import ray_cluster
from sanderling_trainer.policy.training.lora import LoraSettings, fine_tune, pairs_of
from sanderling_trainer.policy.training.metric_logger import (
    NO_METRICS,
    CombinedLogger,
    MetricLogger,
    MLflow,
    TensorBoard,
    WeightsAndBiases,
)

LORA_SHARE = 0.7  # of the training part: what all inner windows have in their past

Encode = Callable[[Sequence[str], str], NDArray[np.float32]]


@dataclass(frozen=True)
class Trained:
    """What `train` returns beside the files."""

    metrics: dict[str, Any]

    choice: Choice

    seconds: dict[str, float]
    """Of each stage."""


def train(
    catalog: Catalog, interactions: Interactions, out: Path, config: Config, **options: Any
) -> Trained:
    """Train a policy, measure its ranking, and write a checkpoint into `out`.

    The settings are chosen on inner windows of the earliest 1 - holdout of the events; a policy
    fitted on that part is measured on the rest, and the one that ships is fitted on the whole log
    with the same settings and epochs. An interrupted fit resumes when the same call is repeated.

    options: the fields of `TrainOptions`.

    Raises `TableError` where nothing in the training part is liked, `DeviceError` where cuda is
    asked for and not there, `LanguageModelError` where the language model cannot read the texts.
    """
    config = with_prefixes(config)
    return _Run(catalog, interactions, out, config, TrainOptions(**options)).run()


@dataclass
class _Run:
    """One call of `train`."""

    catalog: Catalog
    log: Interactions
    out: Path
    config: Config
    options: TrainOptions
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> Trained:
        self._last = time.perf_counter()
        cut = cut_after(self.log, 1.0 - self.options.holdout, 1.0)
        check_liked(cut)
        torch_device(self.options.device)  # raises before anything is written
        use_threads(self.options.threads)
        model = self._language_model()
        readability = self._check_texts(model)
        self.out.mkdir(parents=True, exist_ok=True)
        self._workers = ray_cluster.join(self.options.cluster) if self.options.cluster else 0
        vectors = self._vectors(self._encoder(model, cut))
        self._lap("encode")

        items = len(self.catalog)
        choice = choose_settings.choose(cut.past, items, self.config, self.options.choose, vectors)
        self._lap("choose")

        part = TrainingPart(cut.past, items, choice.repeats)
        metrics: dict[str, Any] = {
            "log": self._summary(choice),
            "texts": {name: asdict(found) for name, found in readability.items()},
            "choice": choice.as_dict(),
        }
        fit = None
        if self.options.holdout > 0:
            fit = self._fit(part, choice.config, vectors, "fit for the report")
            self._lap("fit for the report")
            metrics["ranking"] = ranking_report.tables(fit.context.network, cut, choice)
            self._lap("evaluate")
        if fit is None or self.options.refit:
            part = TrainingPart(self.log, items, choice.repeats)
            fit = self._fit(part, choice.config, vectors, "fit on the whole log")
            self._lap("fit")
        metrics["warm_start"] = {"epochs": len(fit.curves.loss), "loss": fit.curves.loss}
        metrics["newcomers"] = asdict(fit.newcomers)
        metrics["seconds"] = dict(self.seconds)

        self._save(fit, part, choice, metrics)
        self._lap("write")
        return Trained(metrics, choice, self.seconds)

    def _language_model(self) -> LanguageModel:
        config = self.config
        model = LanguageModel(config.language_model, config.max_tokens, self.options.device)
        model.check_distillable(config.language_model)
        return model

    def _check_texts(self, model: LanguageModel) -> dict[str, Readability]:
        """Measure how well the language model reads the texts.

        Raises `LanguageModelError` where it cannot, unless `train_anyway`.
        """
        tokenizer = model.tokenizer.backend_tokenizer
        contexts = [text for text in self.log.contexts if text]
        texts = {"items": self.catalog.texts, "contexts": contexts}
        readability = {name: measure(tokenizer, found) for name, found in texts.items()}
        if not self.config.train_anyway:
            check_readable(self.config.language_model, readability)
        return readability

    def _vectors(self, encode: Encode) -> TextVectors:
        self._features = fit_features(self.catalog)
        table = attribute_table(self._features, self.catalog)
        return TextVectors(
            attributes=table,
            items=torch.from_numpy(
                encode(self.config.item_texts(self.catalog.texts), "encode items")
            ),
            contexts=torch.from_numpy(self._contexts(encode)),
            device=torch_device(self.options.device),
        )

    def _contexts(self, encode: Encode) -> NDArray[np.float32]:
        log = self.log
        self._context_features = fit_context_features(log.context_types, log.context_values)

        def encoded(texts: Sequence[str]) -> NDArray[np.float32]:
            return encode(self.config.query_texts(texts), "encode contexts")

        return context_vectors(log.contexts, log.context_values, self._context_features, encoded)

    def _encoder(self, model: LanguageModel, cut: Cut) -> Encode:
        """Write the language model into the checkpoint; return what encodes texts by it."""
        config = self.config
        folder = self.out / "encoder"
        if self.options.lora:
            settings = LoraSettings(seed=config.seed)
            # Without the events that inner windows and the report measure by.
            learned_from = cut_after(cut.past, LORA_SHARE, 1.0).past
            rng = np.random.default_rng(config.seed)
            pairs = pairs_of(learned_from, settings.days, settings.pairs, rng)
            fine_tune(model, config.item_texts(self.catalog.texts), pairs, settings)
        model.save(folder)

        if self._workers:
            return partial(ray_cluster.encode, str(folder), config.max_tokens, self._workers)
        return model.encode

    def _fit(self, part: TrainingPart, config: Config, vectors: TextVectors, label: str) -> Fit:
        # By the features too: another schema gives parameters of another shape.
        maps = (self._features, self._context_features)
        schemas = [each and each.schema for each in maps]
        identity = f"{content_hash(self.catalog.ids, part.log)}{config}{self.options.lora}{schemas}"
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        logger = self._metric_logger(part, config)
        options = FitOptions(logger, self.out / f"unfinished-{name}.pt", self._workers, label=label)
        try:
            return fit_policy(part, config, vectors, options)
        finally:
            logger.close()

    def _metric_logger(self, part: TrainingPart, config: Config) -> MetricLogger:
        """Record the fit that ships, not the one that is measured alone."""
        if self.options.refit and part.log is not self.log:
            return NO_METRICS
        loggers: list[MetricLogger] = [TensorBoard(self.out / "runs")]
        if self.options.wandb:
            loggers.append(WeightsAndBiases(self.options.wandb, asdict(config)))
        if self.options.mlflow:
            loggers.append(MLflow(self.options.mlflow, asdict(config)))
        return CombinedLogger(loggers)

    def _summary(self, choice: Choice) -> dict[str, Any]:
        return {
            "events": len(self.log),
            "left_out": self.log.left_out,
            "users": choice.statistics.users,
            "items": len(self.catalog),
            "repeats": choice.repeats,
            "shipped_on": "the whole log" if self.options.refit else "all but the part held out",
        }

    def _save(self, fit: Fit, part: TrainingPart, choice: Choice, metrics: dict[str, Any]) -> None:
        metadata = CheckpointMetadata(
            app=self.options.app,
            release=self.options.parent + 1,
            parent=self.options.parent,
            kinds=part.kinds,
            repeats=choice.repeats,
            log_from=int(part.log.time.min()),
            log_to=part.end,
            data_sha256=content_hash(self.catalog.ids, part.log),
            context={name: each.as_dict() for name, each in self.log.context_types.items()},
        )
        trained = Checkpoint(
            fit.context.network,
            self.catalog,
            choice.config,
            metadata,
            part.popularity,
            Exposure.of_log(part.log.item, len(self.catalog)),
            features=self._features,
            context_features=self._context_features,
        )
        queries = queries_of(part.histories, choice.repeats)
        checkpoint.save(self.out, trained, metrics, queries=queries)

    def _lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
