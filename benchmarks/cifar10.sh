#!/bin/sh
# CIFAR-10: a spiking network by the recipe of docs/measurements/recipe.md beside its ANN twin after as many images, and beside the
# paper's recipe after as many minutes. For a GPU.
#
#   benchmarks/cifar10.sh DATA OUT [STEPS [BATCH [SAMPLES]]]
#
# DATA: folder with cifar10 (as `sddpm train` reads it) and inception.pth (the 2015 weights). STEPS (100000) of BATCH
# (128) images: of the spiking network, the first 60 % without SNN time, and of the twin. SAMPLES (10000): of each FID-768
# and KID, against the test images; FID in 768 features needs more than 768.
# Started again, it goes on where it was stopped, except the paper's recipe, whose minutes are counted in one go.
set -eu
data=$1 out=$2 steps=${3:-100000} batch=${4:-128} samples=${5:-10000}
first=$((steps * 6 / 10)) rest=$((steps - steps * 6 / 10))
mkdir -p "$out"

trained() {  # run, arguments of `sddpm train` -> the run to its end, from its last checkpoint on if it has one
    run=$1
    shift
    if [ -d "$run/checkpoints" ]; then
        sddpm train --resume --out "$run"
    else
        sddpm train "$@" --data "$data/cifar10" --out "$run" --set train.batch_size="$batch"
    fi
}

# 16.8 million parameters, 34 MB in half precision.
size="--set model.base_channels=128 --set model.channel_mult=[1,2,2] --set train.compile=true"
trained "$out/quantized" cifar10_small $size --set model.kind=quantized --set train.steps=$first --set train.lr=1.5e-3
[ -d "$out/converted" ] || sddpm convert-ann "$out/quantized" "$out/converted" --T 4
trained "$out/spiking" "$out/converted/config.yaml" --init-from "$out/converted" \
    --set train.steps=$rest --set train.lr=6e-4 --set train.seed=1
trained "$out/twin" cifar10_small $size --set model.kind=ann --set train.steps=$steps

if [ ! -f "$out/paper/finished" ]; then
    seconds=$(python -c 'import sys; from sddpm.training import read_metrics
print(max(1, round(sum(read_metrics(run)[-1]["seconds"] for run in sys.argv[1:]))))' \
        "$out/quantized" "$out/spiking")
    rm -rf "$out/paper"
    # It stops at the signal, and saves what it has.
    timeout "$seconds" sddpm train cifar10 --data "$data/cifar10" --out "$out/paper" --set train.compile=true \
        --set train.precision=bf16 --set train.sample_every=0 || [ $? = 124 ]
    touch "$out/paper/finished"
fi

for name in spiking twin paper; do
    [ -f "$out/$name.json" ] || sddpm evaluate "$out/$name" --reference cifar10 --data "$data/cifar10" --split test \
        --metric fid,kid --dim 768 --inception "$data/inception.pth" --interval --samples "$samples" --steps 50 \
        --solver sde-dpm++ --work "$out/work" --out "$out/$name.json" --grid "$out/$name.png"
done
