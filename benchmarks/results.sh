#!/bin/sh
# The numbers of docs/measurements/results.md. Every command goes on where it was stopped. Inception takes 0.08 to 0.12 seconds an
# image on one CPU core, mnist_small and fashion_mnist_small 100 to 300 images' denoising steps a second.
#
#   benchmarks/results.sh DATA RUNS OUT
#
# DATA: folder with mnist, fashion-mnist and cifar10 (as `sddpm train` reads them), fad (FSVAE's autoencoders and
# statistics: {mnist,fashion}_64.pth, {mnist,fashion}_test_64.npz) and inception.pth (the 2015 weights).
# RUNS: folder with the runs mnist_small and fashion_mnist_small of docs/measurements/first-runs.md.
set -eu
data=$1 runs=$2 out=$3
mkdir -p "$out"

fad() {  # data set -> options
    name=${1%%-*}
    echo "--metric fad --fad-weights $data/fad/${name}_64.pth --fad-statistics $data/fad/${name}_test_64.npz"
}

inception="--metric fid,kid --dim 768 --inception $data/inception.pth"

for set in fashion-mnist mnist; do
    run=$runs/$(echo $set | tr - _)_small
    against="--data $data/$set --reference $set --split test --force --work $out/work-$set"

    # A: FAD of the models.
    sddpm evaluate "$run" $against $(fad $set) --samples 2000 --steps 50 --interval \
        --out "$out/fad-$set.json" --grid "$out/fad-$set.png"
    # B: threshold guidance.
    sddpm guide "$run" $against $(fad $set) --samples 500 --seed-sets 2 --steps 20 --refine 1 \
        --grid 0.9,0.95,0.98,0.99,0.997,1,1.003,1.01,1.02,1.05 --no-store \
        --out "$out/guide-$set.json" --figure "$out/guide-$set.png"
    # C: FID-768 and KID of the models, at their 32 x 32.
    sddpm evaluate "$run" $against $inception --samples 2000 --steps 50 --interval --out "$out/fid-$set.json"
done

for set in fashion-mnist mnist cifar10; do
    against="--data $data/$set --reference $set --split test --force --no-copies --work $out/work-$set"

    # D: what real training images score, as stored.
    sddpm evaluate $set:train $against $inception --samples 10000 --interval --out "$out/floor-$set.json"
    # E: the same as C sees images, 32 x 32 and 2,000 of them.
    sddpm evaluate $set:train $against $inception --samples 2000 --image-size 32 --interval --out "$out/floor-32-$set.json"
done

for set in fashion-mnist mnist; do
    # F: what real training images score in FAD.
    sddpm evaluate $set:train --data $data/$set --reference $set --split test --force --no-copies \
        $(fad $set) --samples 10000 --interval --out "$out/floor-fad-$set.json"
done
