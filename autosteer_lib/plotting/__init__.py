"""Figures: one public function each, from a tidy table to a matplotlib Figure. See `style` for the look."""

from autosteer_lib.plotting.answers import answer_drift, case_gallery, prompt_gallery
from autosteer_lib.plotting.costs import cost_bars
from autosteer_lib.plotting.gate_scores import gate_scores_by_set
from autosteer_lib.plotting.heatmaps import contrast_cosine_heatmaps
from autosteer_lib.plotting.probers import prober_accuracy_over_epochs
from autosteer_lib.plotting.rates import rates_by_surface
from autosteer_lib.plotting.sas import sas_by_layer
from autosteer_lib.plotting.states import project_states, state_pca
from autosteer_lib.plotting.sweeps import asr_over_epsilon, lines_by_layer, sweep
from autosteer_lib.plotting.training import training_curves

__all__ = [
    "answer_drift",
    "asr_over_epsilon",
    "case_gallery",
    "contrast_cosine_heatmaps",
    "cost_bars",
    "gate_scores_by_set",
    "lines_by_layer",
    "prober_accuracy_over_epochs",
    "project_states",
    "prompt_gallery",
    "rates_by_surface",
    "sas_by_layer",
    "state_pca",
    "sweep",
    "training_curves",
]
