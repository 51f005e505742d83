"""Releases the model of a training run: half-precision weights, and a model card with facts and scores."""

from sddpm.release.card import CardFacts as CardFacts
from sddpm.release.card import card_text as card_text
from sddpm.release.evaluations import Evaluation as Evaluation
from sddpm.release.evaluations import read_evaluations as read_evaluations
from sddpm.release.package import release as release
from sddpm.release.weights import halve as halve
