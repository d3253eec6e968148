"""The log of stored events: segments, daily files, and the training examples built from them."""
