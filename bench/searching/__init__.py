"""Catalogs, queries and contenders of the search by words."""
