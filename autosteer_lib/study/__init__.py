"""A study: one profile's model, prompts and fitted parts, and each chapter's measurements of them."""

from autosteer_lib.study.study import Study

__all__ = ["Study"]
