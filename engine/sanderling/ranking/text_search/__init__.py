"""Finds items by words, with what the encoder and the user's own scores say of them."""
