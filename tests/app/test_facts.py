"""The choices that the page offers for a model."""

from sddpm.app.facts import facts_of
from sddpm.app.settings import Settings
from tests.helpers.small_pipeline import pipeline_of


def test_every_class_that_is_chosen_is_drawn():
    """Also if the name of a class is the number of another."""
    for names in (["2", "0", "boot"], ["shirt", "bag"], None):
        pipeline = pipeline_of(num_classes=3, names=names)
        choices = facts_of(pipeline).classes[3:]
        wanted = [Settings("tiny", seeds="0", label=value).wanted(pipeline).labels for _, value in choices]
        assert wanted == [[0], [1], [2]], choices
        assert [text for text, _ in choices[: len(names or [])]] == (names or [])
