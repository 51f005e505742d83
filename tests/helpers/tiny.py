"""Overrides of the digits config that make a network whose steps take milliseconds."""

TINY = (
    *("data.image_size=8", "model.base_channels=8", "model.channel_mult=[1,2]", "model.num_res_blocks=1", "model.T=2"),
    *("model.patch_size=1", "train.batch_size=8", "train.steps=2", "train.warmup_steps=1", "train.log_every=1"),
    *("train.sample_every=0", "train.checkpoint_every=1", "train.precision=float32", "train.tensorboard=false"),
)
