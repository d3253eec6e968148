"""Exact search by dot product: problems, contenders, and the process that times one of them."""
