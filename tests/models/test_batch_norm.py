"""Batch norm over several processes equals batch norm of the whole batch in one."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sddpm.models.batch_norm import StepBatchNorm2d, synchronize_batch_norm


def make():
    torch.manual_seed(0)
    norm = StepBatchNorm2d(5).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(3, 6, 5, 4, 2, dtype=torch.double) * 2 + 1
    return norm, x, torch.randn_like(x)


def worker(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    norm, x, target = make()
    synchronize_batch_norm(norm)
    part = slice(0, 2) if rank == 0 else slice(2, 6)  # processes may hold different numbers of images
    mine = x[:, part].clone().requires_grad_()
    out = norm(mine)
    (out * target[:, part]).sum().backward()
    result = [out.detach(), mine.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
    torch.save([*result, norm.num_batches_tracked], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    norm, x, target = make()
    whole = x.clone().requires_grad_()
    out = norm(whole)
    (out * target).sum().backward()

    def close(a, b):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)

    close(torch.cat([p[0] for p in parts], dim=1), out)
    close(torch.cat([p[1] for p in parts], dim=1), whole.grad)
    close(parts[0][2] + parts[1][2], norm.weight.grad)
    close(parts[0][3] + parts[1][3], norm.bias.grad)
    for part in parts:
        close(part[4], norm.running_mean)
        close(part[5], norm.running_var)
        assert part[6] == norm.num_batches_tracked == 1
