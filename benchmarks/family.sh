#!/bin/sh
# The rows of the family in docs/measurements/results.md that compare classes, attention, Analytic-DPM and inpainting with what they
# are an alternative to. Stopped trainings and evaluations go on where they were.
#
#   benchmarks/family.sh DATA OUT
#
# DATA: as of results.sh. Some 70 minutes of one core of a CPU, by estimate; it has not been run whole.
set -eu
data=$1 out=$2
mkdir -p "$out"

start="--init-from fashion-mnist-small --data $data/fashion-mnist --set train.steps=600 --set train.lr=3e-4
    --set train.warmup_steps=30 --set train.ema_decay=0.99 --set train.sample_every=0"
fad="--reference fashion-mnist --data $data/fashion-mnist --split test --protocol fsddim --metric fad --interval
    --no-copies --fad-weights $data/fad/fashion_64.pth --fad-statistics $data/fad/fashion_test_64.npz --force"

trained() {  # run, config -> the run to its end, from its last checkpoint on if it has one
    if [ -d "$1/checkpoints" ]; then
        sddpm train --resume --out "$1"
    else
        sddpm train "$2" $start --out "$1"
    fi
}

# Trained on from fashion-mnist-small for as long: as it is, with classes, with attention at 8 x 8.
for config in fashion_mnist_small fashion_mnist_small_classes fashion_mnist_small_attention; do
    trained "$out/$config" $config
    sddpm evaluate "$out/$config" $fad --samples 1000 --steps 20 --work "$out/work-$config" --out "$out/$config.json"
done
sddpm evaluate "$out/fashion_mnist_small_classes" $fad --samples 1000 --steps 20 --guidance-scale 2 \
    --work "$out/work-guided" --out "$out/guided.json"

# Analytic-DPM, on a copy of fashion-mnist-small that may keep its moments.
if [ ! -d "$out/fashion" ]; then
    model=$(python -c 'from sddpm.pretrained import find_pretrained; print(find_pretrained("fashion-mnist-small"))')
    cp -r "$model" "$out/fashion"
    sddpm moments "$out/fashion" --config fashion_mnist_small --data $data/fashion-mnist --samples 32
fi
for steps in 10 20 50; do  # docs/measurements/analytic-dpm.md has 500 samples of 10 and 20 steps
    for solver in ddpm ddim analytic-dpm; do
        sddpm evaluate "$out/fashion" $fad --samples 1000 --steps $steps --solver $solver \
            --work "$out/work-$solver-$steps" --out "$out/$solver-$steps.json"
    done
done

# Inpainting: the right half of the first 200 test images.
sddpm inpaint fashion-mnist-small fashion-mnist:test --data $data/fashion-mnist --mask right --count 200 --draws 1 \
    --steps 20 --resamplings 5 --batch-size 50 --out "$out/painted.npz" --force
sddpm sample fashion-mnist-small --count 200 --steps 20 --batch-size 50 --out "$out/samples.npz" --force
python benchmarks/inpainting_error.py $data/fashion-mnist "$out/painted.npz" "$out/samples.npz" "$out/halves"
for half in real painted mirrored sampled mean; do
    sddpm evaluate "$out/halves/$half.npz" $fad --samples 200 --allow-overlap --out "$out/half-$half.json"
done
