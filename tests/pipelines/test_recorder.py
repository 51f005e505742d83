import torch

from sddpm.diffusion.solvers import make_scheduler
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.recorder import DenoisingRecorder
from tests.helpers.standins import PointwiseModel


def test_it_keeps_first_and_last_step_of_the_first_samples():
    pipe = SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddim"))
    recorder, steps = DenoisingRecorder(samples=2), []

    def both(step):
        recorder(step)
        steps.append(step)

    images = pipe(seeds=range(5), batch_size=3, num_inference_steps=25, output_type="pt", callback=both, progress=False)
    x_t, x0, timesteps = recorder.frames(moments=4)
    assert timesteps == [999, 679, 359, 39]
    assert x_t.shape == x0.shape == (4, 2, 1, 4, 4)
    assert torch.equal(x_t[0], ((steps[0].x_t[:2] / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8))
    assert torch.equal(x0[-1], (images.images[:2] * 255).round().to(torch.uint8))


def test_fewer_steps_than_moments():
    pipe = SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddim"))
    recorder = DenoisingRecorder()
    pipe(seeds=[0], num_inference_steps=1, callback=recorder, progress=False)
    assert recorder.frames()[2] == [999]
