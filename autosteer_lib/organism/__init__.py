"""The model organism: a small world and the models trained on it."""
