"""From a training run to a model that can be given to others: small weights, a card that says what it is and scores."""

from sddpm.release.card import CardFacts as CardFacts
from sddpm.release.card import card_text as card_text
from sddpm.release.evaluations import Evaluation as Evaluation
from sddpm.release.evaluations import read_evaluations as read_evaluations
from sddpm.release.package import release as release
from sddpm.release.weights import halve as halve
