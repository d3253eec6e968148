"""Signed releases: a repository of The Update Framework (TUF), in a folder or an object store.

`create` makes one, `repository` publishes in it, `rotation` replaces keys, `status` reads it.
"""
