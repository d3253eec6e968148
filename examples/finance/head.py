"""A classifier on the vectors of the device's encoder that learns from each feedback at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

PENALTIES = (0.3, 1.0, 3.0)


class Head:
    """Ridge regression of +1 for a headline's label and -1 for the others, on vectors [width]."""

    # Recursive least squares: after each feedback the weights are exactly those of a ridge
    # regression on all feedback so far, at a cost of width² (Plackett 1950). One regression for
    # each penalty; the one answers that has predicted best so far, each time before it learned.
    def __init__(self, labels: Sequence[str], width: int) -> None:
        self._labels = np.array(labels)
        self._inverse = np.stack([np.eye(width + 1) / penalty for penalty in PENALTIES])
        self._weights = np.zeros((len(PENALTIES), width + 1, len(labels)))
        self._losses = np.zeros(len(PENALTIES))

    def scores(self, vectors: ArrayLike) -> NDArray[np.float64]:
        """Return the scores of labels, float64 [n, labels], for vectors [n, width]."""
        weights = self._weights[self._losses.argmin()]
        return np.asarray(vectors, np.float64) @ weights[:-1] + weights[-1]

    def learn(self, vectors: ArrayLike, labels: Sequence[str]) -> None:
        """Learn the labels of headlines with these vectors [n, width], one after the other."""
        for vector, label in zip(np.asarray(vectors, np.float64), labels, strict=True):
            x = np.append(vector, 1.0)
            miss = np.where(self._labels == label, 1.0, -1.0) - x @ self._weights
            self._losses += np.square(miss).sum(axis=1)
            change = self._inverse @ x
            gain = change / (1.0 + change @ x)[:, None]
            self._weights += gain[:, :, None] * miss[:, None]
            self._inverse -= gain[:, :, None] * change[:, None]
