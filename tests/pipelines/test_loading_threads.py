"""Models are loaded by several threads at once, as a server does."""

from concurrent.futures import ThreadPoolExecutor

import torch

from sddpm.pipelines import load_pipeline
from tests.helpers.small_pipeline import pipeline_of


def test_threads_load_and_build_at_once(tmp_path):
    pipeline_of().save_pretrained(tmp_path)
    wanted = load_pipeline(tmp_path).unet.state_dict()

    def load(_):
        return load_pipeline(tmp_path).unet

    def build(_):
        return pipeline_of().unet

    with ThreadPoolExecutor(8) as pool:
        works = [pool.submit(work, i) for i in range(12) for work in (load, build)]
        networks = [work.result() for work in works]
    assert all(p.device.type == "cpu" for network in networks for p in network.parameters())
    assert not torch.nn.Linear(2, 2).weight.is_meta
    for network in networks[::2]:
        assert all(torch.equal(wanted[name], tensor) for name, tensor in network.state_dict().items())
