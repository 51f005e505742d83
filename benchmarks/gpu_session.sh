#!/usr/bin/env bash
# For a machine with a GPU and no network: two calls, 15 minutes in all; at most 64 MiB travel a call.
#
#   benchmarks/gpu_session.sh prepare DATA WHEELS    here: this checkout without what need not travel, and what does in
#                                                    out/carried/first and out/carried/second; checks how large they are
#   benchmarks/gpu_session.sh first OUT              there, under 4 minutes: the CUDA tests, then speed
#   benchmarks/gpu_session.sh second OUT             there, within 30 seconds after it, under 9 minutes: a training
#   benchmarks/gpu_session.sh receive OUT RUN        here: a run folder of what came back, with its samples
#   benchmarks/gpu_session.sh restore                here: the whole checkout again
#
# DATA: folder with cifar10 (train-0.zip and train-1.zip). WHEELS: those of GPU.md. Each call brings the checkout and its
# folder of out/carried, half of CIFAR-10; what lies in out/ there stays for the second call. OUT: a folder that comes
# back, with at most 8 files of 16 MiB.
# The training is the recipe of docs/measurements/recipe.md at 16.8 million parameters with classes: QUANTIZED seconds (190) without
# SNN time, SPIKING (140) in spikes, then SAMPLES (10000) of DPM-Solver++ with 20 steps. STAND_IN=1 tries all of it on a
# CPU, at its smallest.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
carried=out/carried scratch=out/gpu
small=${STAND_IN:+yes}
MIB=$((1024 * 1024))

bytes() { # paths -> their size
    du -cb "$@" | tail -n 1 | cut -f1
}

prepare() { # DATA WHEELS
    git sparse-checkout set --no-cone '/*' '!*.png' '!/src/sddpm/pretrained/models/' '!/tests/vectors/*.ckpt.pt' '!/benchmarks/long_run/'
    rm -rf "$carried"
    mkdir -p "$carried/first" "$carried/second"
    cp -r "$2" "$carried/first/wheels"
    cp "$1/cifar10/train-0.zip" "$carried/first/"
    cp "$1/cifar10/train-1.zip" "$carried/second/"
    check
}

check() { # that what travels is small enough
    local code each
    code=$(git ls-files -z --cached --others --exclude-standard | while IFS= read -rd '' each; do
        if [ -f "$each" ]; then stat -c %s "$each"; fi
    done | awk '{s += $1} END {print s}')
    if [ "$code" -ge $((6 * MIB)) ]; then
        echo "the checkout has $((code / 1024)) KiB; under 6 MiB may travel: leave out models, pictures, packed runs" >&2
        exit 2
    fi
    for each in first second; do
        if [ $((code + $(bytes "$carried/$each"))) -ge $((64 * MIB)) ]; then
            echo "the checkout and $carried/$each are larger than the 64 MiB that travel in a call" >&2
            exit 2
        fi
    done
    echo "the checkout has $((code / 1024)) KiB; $carried is ready"
}

there() { # command...: on this source tree, with the wheels that were carried
    if [ -d "$carried/first/wheels" ]; then
        BUILD=no TMPDIR="$root/$scratch" sh benchmarks/gpu_offline.sh "$root/$carried/first/wheels" "$@"
    else
        PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}" "$@"
    fi
}

stage() { # name, seconds at most, command...: its output in OUT/NAME.log; a failure does not stop the others
    local name=$1 seconds=$2 status=0
    shift 2
    [ -z "$small" ] || seconds=600
    there timeout -k 10 "$seconds" "$@" >>"$out/$name.log" 2>&1 || status=$?
    echo "$name: exit code $status after $SECONDS s in all"
    return $status
}

first() { # OUT
    local tests=(tests/neurons tests/inference tests/training/test_devices.py tests/pipelines/test_spiking_diffusion.py)
    local speed=(--out "$out/speed" --stages machine training sampling)
    [ -z "$small" ] || tests=(tests/training/test_devices.py) speed+=(--device cpu --quick)
    stage tests 110 python3 -m pytest -n0 -m cuda "${tests[@]}" || true
    stage speed 110 python3 benchmarks/gpu.py "${speed[@]}" --minutes 1.5 || true
    tail -n 3 "$out/tests.log"
    cat "$out/speed/gpu.md"
}

second() { # OUT
    local data=$scratch/cifar10 runs=$scratch/runs steps half network rest written few from
    local quantized=${QUANTIZED:-190} spiking=${SPIKING:-140} samples=${SAMPLES:-10000} batch=256 channels=128 part=15m
    local trial="30 180"
    [ -z "$small" ] || quantized=1 spiking=1 samples=4 batch=2 channels=8 part=100k trial="1 3"
    mkdir -p "$data"
    cp "$carried"/first/*.zip "$carried"/second/*.zip "$data/"
    rm -rf "$runs"
    network=(--set "model.base_channels=$channels" --set 'model.channel_mult=[1,2,2]' --set model.num_classes=10
        --set model.kind=quantized --set "train.batch_size=$batch" --set train.ema_decay=0.999
        --set train.lr=1.5e-3 --set train.warmup_steps=200)
    rest=(--set train.lr=6e-4 --set train.warmup_steps=100 --set train.seed=1)
    written=(--set train.sample_every=0 --set train.log_every=50 --set train.checkpoint_every=100000)
    few=(--set data.limit=1024 --set "data.path=$root/$data" --wall --trial $trial)

    steps=$(fitting "$quantized" cifar10_small "${network[@]}")
    stage training $((quantized + 40)) python3 -m sddpm train cifar10_small --data "$data" --out "$runs/quantized" \
        "${network[@]}" "${written[@]}" --set "train.steps=$steps" || [ -d "$runs/quantized/model" ]
    stage training 60 python3 -m sddpm convert-ann "$runs/quantized" "$runs/converted" --T 4
    from=("$runs/converted/config.yaml" --init-from "$runs/converted")
    steps=$(fitting "$spiking" "${from[@]}" "${rest[@]}")
    stage training $((spiking + 40)) python3 -m sddpm train "${from[@]}" --data "$data" --out "$runs/spiking" \
        "${rest[@]}" "${written[@]}" --set "train.steps=$steps" || [ -d "$runs/spiking/model" ]

    # What comes back: the averaged weights in half precision, the metrics, and the samples, 16 MiB a file at most.
    cp -r "$runs/spiking/model" "$scratch/model"
    there python3 -c 'import sys; from pathlib import Path; from sddpm.release.weights import halve_file
halve_file(Path(sys.argv[1]))' "$scratch/model/unet/diffusion_pytorch_model.safetensors"
    cp "$runs/spiking/config.yaml" "$runs/spiking/history.yaml" "$scratch/"
    cat "$runs/quantized/metrics.jsonl" "$runs/spiking/metrics.jsonl" >"$scratch/metrics.jsonl"
    tar -c -C "$scratch" model config.yaml history.yaml metrics.jsonl | split -b "$part" - "$out/run.part-"
    rm -r "$scratch/model"
    for half in 0 1; do
        stage samples 60 python3 -m sddpm sample "$runs/spiking" --solver dpm++ --steps 20 --batch-size 500 \
            --seeds "$((half * samples / 2))-$(((half + 1) * samples / 2 - 1))" --out "$out/samples-$half.npz" --force || true
    done
    tail -n 2 "$out/training.log" "$out/samples.log"
}

fitting() { # seconds, config, its options -> how many steps fit into them here
    local seconds=$1 config=$2 most=60
    shift 2
    [ -z "$small" ] || most=600
    there timeout "$most" python3 benchmarks/step_seconds.py "$config" "$seconds" "$@" "${few[@]}" \
        2>>"$out/training.log" | tail -n 1
}

receive() { # OUT RUN
    mkdir "$2"
    cat "$1"/run.part-* | tar -x -C "$2"
    there python3 -c 'import sys; import numpy as np
parts = [np.load(name) for name in sys.argv[2:]]
np.savez(sys.argv[1], **{key: np.concatenate([part[key] for part in parts]) for key in parts[0].files})' \
        "$2/samples.npz" "$1"/samples-*.npz
}

case ${1:-} in
prepare) prepare "$2" "$3" ;;
first | second)
    out=$2
    mkdir -p "$out" "$scratch"
    "$1" ;;
receive) receive "$2" "$3" ;;
restore) git sparse-checkout disable ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
