"""Exploration schemes that draw slates with exact propensities."""
