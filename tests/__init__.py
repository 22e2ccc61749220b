"""Tests of autosteer_lib; `tests.tiny_models` and `tests.steerings` are shared by them."""
