"""The choices that the page offers for a model."""

from sddpm.app.facts import facts_of
from sddpm.app.settings import Settings
from sddpm.app.tabs.fields import solver_choices, steps_choice
from sddpm.pipelines.class_guidance import class_name
from tests.helpers.small_pipeline import pipeline_of


def test_every_class_that_is_chosen_is_drawn():
    """Also if the name of a class is the number of another."""
    for names in (["2", "0", "boot"], ["shirt", "bag"], None):
        pipeline = pipeline_of(num_classes=3, names=names)
        choices = facts_of(pipeline).classes[3:]
        wanted = [Settings("tiny", seeds="0", label=value).wanted(pipeline).labels for _, value in choices]
        assert wanted == [[0], [1], [2]], choices
        assert [text for text, _ in choices] == [class_name(i, names) for i in range(3)]


def test_the_default_is_that_of_a_picture_without_choices():
    pipeline = pipeline_of("unipc")
    facts = facts_of(pipeline)
    assert (facts.solver, facts.steps, facts.distilled) == ("unipc", 50, False)
    assert solver_choices(facts)["choices"][0] == ("default (unipc)", "") and len(facts.solvers) > 3
    pipeline.register_to_config(samplers={"quick": {"solver": "dpm++", "timesteps": [999, 300]}}, sampler="quick")
    facts = facts_of(pipeline)
    assert (facts.solver, facts.steps) == ("dpm++", 2)
    assert solver_choices(facts)["choices"][0] == ("default (dpm++)", "")
    assert steps_choice(facts) == {"placeholder": "default (2)", "interactive": True}


def test_a_distilled_model_has_one_solver_and_one_number_of_steps():
    facts = facts_of(pipeline_of(timesteps=[999, 500, 120]))
    assert (facts.solver, facts.steps, facts.solvers) == ("ddim", 3, ["ddim"])
    assert steps_choice(facts) == {"placeholder": "default (3)", "interactive": False}
