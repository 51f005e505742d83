#!/bin/sh
# The numbers of docs/measurements/ann-to-snn.md and fsddim.md: two short runs on one CPU core, a conversion and its FAD.
#
#   OMP_NUM_THREADS=1 benchmarks/conversion.sh DATA OUT
#
# DATA: folder with fashion-mnist and fad, as of results.sh.
set -eu
data=$1 out=$2
mkdir -p "$out"
short="--data $data/fashion-mnist --set train.sample_every=0"

fad() {  # model -> its FAD, 500 samples of DDIM-20, and the first 24 of them
    name=$(basename "$1")
    sddpm evaluate "$1" --data "$data/fashion-mnist" --reference fashion-mnist --split test --no-copies --force \
        --metric fad --fad-weights "$data/fad/fashion_64.pth" --fad-statistics "$data/fad/fashion_test_64.npz" \
        --samples 500 --steps 20 --work "$out/work" --out "$out/fad-$name.json"
    sddpm sample "$1" --count 24 --steps 20 --out "$out/$name.png" --force
}

sddpm train fashion_mnist_small_quantized $short --set train.steps=1000 --out "$out/quantized"
sddpm convert-ann "$out/quantized" "$out/spikes" --force
sddpm convert-ann "$out/quantized" "$out/tuned" --force --finetune-steps 250 --batch-size 16 --lr 3e-4 \
    --data "$data/fashion-mnist" --report "$out/errors.json" --plot "$out/errors.png" --report-images 48
sddpm convert-ann "$out/quantized" "$out/signed" --force --signed
for name in quantized spikes tuned signed; do fad "$out/$name"; done

sddpm train fashion_mnist_small_fsddim $short --set train.steps=800 --set train.batch_size=32 --out "$out/fsddim"
fad "$out/fsddim"
