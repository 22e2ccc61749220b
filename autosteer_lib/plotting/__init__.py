"""Figures: one public function each, from a tidy table to a matplotlib Figure. See `style` for the look."""

from autosteer_lib.plotting.ablation import ablation_dots
from autosteer_lib.plotting.answer_counts import cells_by_size
from autosteer_lib.plotting.answers import answer_drift, case_gallery, prompt_gallery
from autosteer_lib.plotting.clean_rows import fall_on_clean_rows
from autosteer_lib.plotting.costs import cost_bars
from autosteer_lib.plotting.endings import endings_by_variant
from autosteer_lib.plotting.first_words import first_word_scores
from autosteer_lib.plotting.fixed_strength import refusal_by_layer, refusal_by_strength
from autosteer_lib.plotting.gate_scores import gate_scores_by_set
from autosteer_lib.plotting.heatmaps import contrast_cosine_heatmaps
from autosteer_lib.plotting.layer_scores import layer_scores_and_sum
from autosteer_lib.plotting.method_planes import Plane, method_planes
from autosteer_lib.plotting.models import lines_of_models, rates_of_models
from autosteer_lib.plotting.neutral_images import refusal_by_neutral_images
from autosteer_lib.plotting.probe_loss import probe_loss
from autosteer_lib.plotting.probe_plane import probe_planes
from autosteer_lib.plotting.probers import prober_accuracy_over_epochs
from autosteer_lib.plotting.rate_table import rate_table
from autosteer_lib.plotting.rates import rates_by_surface
from autosteer_lib.plotting.safety_plane import safety_against_cost
from autosteer_lib.plotting.sas import sas_by_layer
from autosteer_lib.plotting.separation import separation_by_layer
from autosteer_lib.plotting.stated_sums import stated_against_cells
from autosteer_lib.plotting.states import centred_states, project_states, state_pca
from autosteer_lib.plotting.sweeps import asr_over_epsilon, lines_by_layer, sweep
from autosteer_lib.plotting.training import training_curves
from autosteer_lib.plotting.trainings import rates_of_trainings

__all__ = [
    "Plane",
    "ablation_dots",
    "answer_drift",
    "asr_over_epsilon",
    "case_gallery",
    "cells_by_size",
    "centred_states",
    "contrast_cosine_heatmaps",
    "cost_bars",
    "endings_by_variant",
    "fall_on_clean_rows",
    "first_word_scores",
    "gate_scores_by_set",
    "layer_scores_and_sum",
    "lines_by_layer",
    "lines_of_models",
    "method_planes",
    "probe_loss",
    "probe_planes",
    "prober_accuracy_over_epochs",
    "project_states",
    "prompt_gallery",
    "rate_table",
    "rates_by_surface",
    "rates_of_models",
    "rates_of_trainings",
    "refusal_by_layer",
    "refusal_by_neutral_images",
    "refusal_by_strength",
    "safety_against_cost",
    "sas_by_layer",
    "separation_by_layer",
    "state_pca",
    "stated_against_cells",
    "sweep",
    "training_curves",
]
