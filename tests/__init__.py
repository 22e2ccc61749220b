"""Tests of autosteer_lib; `tests.steerings` is shared by them."""
