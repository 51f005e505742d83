#!/usr/bin/env bash
# Long trainings on a CPU, one stage after another, each going on where it was stopped.
#
#   benchmarks/long_run.sh DATA HOME KEPT STAGE...     run stages to their end, one after another
#   benchmarks/long_run.sh pack DATA HOME KEPT STAGE   pack a stage's newest checkpoint into KEPT/STAGE (half precision)
#   benchmarks/long_run.sh time HOME                   core-hours and images of every stage so far
#   benchmarks/long_run.sh curve DATA HOME RESULTS     KID and FID of what was kept every two hours (cifar10_curve.py)
#
# DATA: folder with cifar10, fashion-mnist, celeba64 and the Inception weights. HOME: folder with code/ (a frozen copy of
# this repository with its environment in code/.venv; CODE names another) and runs/. KEPT: folder that outlives HOME, for
# packed checkpoints.
#
# Stages, in this order or on two cores: leg-a-quantized leg-a twin paper ours-2h-quantized ours-2h leg-b fashion-twin
# celeba-quantized celeba celeba-twin; from leg-a on also tsm and tsm-none. The arms of recipe.py chose the twin's
# optimiser; TWIN_RECIPE (options of `sddpm train`), PAPER_BATCH and PAPER_LR give others.
#
# One thread, at low priority. A stage that has a run folder is resumed to the same bits; one whose folder is gone goes on
# from the checkpoint packed in KEPT, not to the same bits: runs/STAGE.unpacked then says from which step. CPU seconds are
# written to runs/STAGE.cpu.d, a file a process, so that a stage's cost is known however often it was interrupted. A
# stage's newest checkpoint is packed every PACK_HOURS (8; 0: never) and at its end, in the place of the one before. A
# quantised stage is done when its spiking one has begun. KEPT/STAGE.steps says how many steps a stage with a time has.
set -euo pipefail
stages=(leg-a-quantized leg-a twin paper ours-2h-quantized ours-2h leg-b fashion-twin celeba-quantized celeba celeba-twin
    tsm tsm-none)

refused() { # reason: it and how the script is called, on stderr
    echo "long_run.sh: $1" >&2
    sed -n '/^#   benchmarks/s/^# *//p' "$0" >&2
    exit 2
}

cpu_seconds() { # pid -> CPU seconds that it has taken, with its threads
    awk -v tick="$(getconf CLK_TCK)" '{sub(/.*\) /, ""); print ($12 + $13) / tick}' "/proc/$1/stat"
}

counted() { # stage, command...: run it; its CPU seconds so far stand in runs/STAGE.cpu.d
    local stage=$1 pid file began=$SECONDS
    shift
    "$@" & pid=$!
    trap 'kill -TERM $pid 2>/dev/null; wait $pid || true; exit 143' TERM INT HUP
    file="$runs/$stage.cpu.d/$(date +%s)-$pid"
    mkdir -p "$runs/$stage.cpu.d"
    while kill -0 $pid 2>/dev/null; do
        cpu_seconds $pid >"$file.new" 2>/dev/null && mv "$file.new" "$file"
        if [ "$pack_seconds" -gt 0 ] && [ $((SECONDS - began)) -ge "$pack_seconds" ]; then
            began=$SECONDS
            packed "$stage" || true
        fi
        sleep "${POLL_SECONDS:-5}"
    done
    trap - TERM INT HUP
    wait $pid
}

packed() { # stage: its newest checkpoint in KEPT/STAGE, at most 40 MB, in the place of the stage that it went on from
    "$sddpm" pack "$runs/$1" "$kept/$1.new" --half --max-part 4MB --force || return 1
    if [ "$(du -sm "$kept/$1.new" | cut -f1)" -gt 40 ]; then
        rm -rf "$kept/$1.new"
        echo "the packed checkpoint of $1 is larger than 40 MB and was not kept" >&2
        return 1
    fi
    rm -rf "${kept:?}/$1" && mv "$kept/$1.new" "$kept/$1"
    case $1 in *-quantized) ;; *) rm -rf "${kept:?}/$1-quantized" ;; esac
}

begun() { # stage: whether it has a checkpoint, in its run or packed
    [ -d "$runs/$1/checkpoints" ] || [ -f "$kept/$1/manifest.json" ]
}

needed() { # stage: whether it is still to be trained; a quantised one is not once its spiking form is
    case $1 in *-quantized) begun "$1" || ! begun "${1%-quantized}" ;; esac
}

trained() { # stage, arguments of `sddpm train` -> the run to its end, from its newest checkpoint on
    local stage=$1 run=$runs/$1
    shift
    needed "$stage" || return 0
    if [ ! -d "$run/checkpoints" ] && [ -f "$kept/$stage/manifest.json" ]; then
        rm -rf "$run"
        "$sddpm" unpack "$kept/$stage" "$run"
        ls "$run/checkpoints" >>"$run.unpacked"
    fi
    if [ -d "$run/checkpoints" ]; then
        counted "$stage" "$sddpm" train --resume --out "$run"
    else
        counted "$stage" "$sddpm" train "$@" --out "$run"
    fi
    [ "$pack_seconds" -eq 0 ] || packed "$stage" || true # the next stage does not wait for it
}

steps_in() { # stage, CPU seconds, config, its options -> how many steps fit, measured once and kept in KEPT/STAGE.steps
    local file=$kept/$1.steps
    if [ ! -s "$file" ] && [ -s "$runs/$1.steps" ]; then # where an earlier version kept it
        cp "$runs/$1.steps" "$file"
    elif [ ! -s "$file" ] && needed "$1" && ! begun "$1"; then
        "$python" "$code/benchmarks/step_seconds.py" "$3" "$2" "${@:4}" >"$file.new"
        mv "$file.new" "$file"
    fi
    [ ! -s "$file" ] || cat "$file" # a run that goes on knows its steps itself
}

converted() { # stage: the quantised run before it, in spikes at T = 4, for a stage that starts from it
    begun "$1" || [ -d "$runs/$1-converted" ] || "$sddpm" convert-ann "$runs/$1-quantized" "$runs/$1-converted" --T 4
}

# 4.2 million parameters at 2 x 2 patches; classes, a tenth of them hidden; its weights are kept every 500 steps.
network="--set model.base_channels=64 --set model.channel_mult=[1,2,2] --set model.num_classes=10
    --set train.ema_decay=0.999 --set train.checkpoint_every=500 --set train.keep_checkpoints=200
    --set train.sample_every=0 --set train.log_every=100"
skip="--set model.input_skip=true" # found after leg A
rarely="--set train.checkpoint_every=1000 --set train.keep_checkpoints=50"
# Compiled, the steps of an ANN take less time; its gradients are the same (tests/training/test_compiled_gradients.py).
twin_recipe=${TWIN_RECIPE:---set train.optimizer=muon --set train.lr=1e-3 --set train.compile=true}

leg_a_quantized() {
    trained leg-a-quantized cifar10_small --data "$data/cifar10" $network --set model.kind=quantized \
        --set train.lr=1.5e-3 --set train.warmup_steps=200 --set train.steps=38000
}

leg_a() {
    converted leg-a
    trained leg-a "$runs/leg-a-converted/config.yaml" --data "$data/cifar10" --init-from "$runs/leg-a-converted" \
        --set train.lr=6e-4 --set train.warmup_steps=100 --set train.seed=1 --set train.steps=6000
}

leg_b() { # 1.2 million images more, 8 core-hours and more
    trained leg-b "$runs/leg-a/config.yaml" --data "$data/cifar10" --init-from "$runs/leg-a" $skip \
        --set train.lr=6e-4 --set train.warmup_steps=100 --set train.seed=2 --set train.steps=18500
}

twin() { # as many images as leg A
    trained twin cifar10_small --data "$data/cifar10" $network $rarely --set model.kind=ann \
        --set train.warmup_steps=200 --set train.steps=44000 $twin_recipe
}

paper() { # SDDPM's recipe in two core-hours: IF, hard reset, epsilon, spikes from the start, a warm-up of 5 %
    local steps options="$network $rarely --set diffusion.prediction_type=epsilon --set train.optimizer=adam
        --set train.betas=[0.9,0.999] --set train.weight_decay=0 --set train.lr_schedule=constant
        --set train.batch_size=${PAPER_BATCH:-128} --set train.lr=${PAPER_LR:-2e-4}"
    steps=$(steps_in paper 7200 cifar10_small $options --set "data.path=$data/cifar10")
    trained paper cifar10_small --data "$data/cifar10" $options --set train.warmup_steps=$((steps / 20)) \
        --set train.steps="$steps"
}

ours_2h_quantized() { # our recipe in two core-hours, complete with its decay: two thirds of them
    local steps options="$network $rarely $skip --set model.kind=quantized --set train.lr=1.5e-3 --set train.warmup_steps=200"
    steps=$(steps_in ours-2h-quantized 4800 cifar10_small $options --set "data.path=$data/cifar10")
    trained ours-2h-quantized cifar10_small --data "$data/cifar10" $options --set train.steps="$steps"
}

ours_2h() { # the last third, in spikes
    converted ours-2h
    in_spikes ours-2h 2400 "$data/cifar10" --set train.lr=6e-4
}

in_spikes() { # stage, CPU seconds, data, options: what was converted trained on for so long
    local stage=$1 seconds=$2 where=$3 steps from=$runs/$1-converted
    shift 3
    set -- "$@" --set train.warmup_steps=100 --set train.seed=1
    steps=$(steps_in "$stage" "$seconds" "$from/config.yaml" --init-from "$from" "$@" --set "data.path=$where")
    trained "$stage" "$from/config.yaml" --data "$where" --init-from "$from" "$@" --set train.steps="$steps"
}

tsm() { on_from_leg_a tsm --set model.temporal_modulation=true; }

tsm_none() { on_from_leg_a tsm-none; }

on_from_leg_a() { # stage, options: one core-hour from leg A's weights on
    local stage=$1 steps from=$runs/leg-a
    shift
    set -- "$@" --set train.lr=3e-4 --set train.warmup_steps=100 --set train.seed=3
    steps=$(steps_in "$stage" 3600 "$from/config.yaml" --init-from "$from" "$@" --set "data.path=$data/cifar10")
    trained "$stage" "$from/config.yaml" --data "$data/cifar10" --init-from "$from" "$@" --set train.steps="$steps"
}

fashion_twin() { # as many images as the shipped fashion-mnist has seen in all its stages: 2,521,600
    trained fashion-twin fashion_mnist_medium_quantized --data "$data/fashion-mnist" --set model.kind=ann $rarely \
        --set train.sample_every=0 --set train.log_every=100 --set train.ema_decay=0.999 \
        --set train.warmup_steps=200 --set train.steps=39400 $twin_recipe
}

# 64 x 64 at 4 x 4 patches costs what 32 x 32 does at 2 x 2. The last 2,000 faces are held out.
faces="$network $rarely --set model.num_classes=null --set data.limit=8000"

celeba_quantized() {
    local steps options="$faces $skip --set model.kind=quantized --set train.lr=1.5e-3 --set train.warmup_steps=200"
    steps=$(steps_in celeba-quantized 5400 celeba64_small $options --set "data.path=$data/celeba64")
    trained celeba-quantized celeba64_small --data "$data/celeba64" $options --set train.steps="$steps"
}

celeba() {
    converted celeba
    in_spikes celeba 2700 "$data/celeba64" --set train.lr=6e-4
}

celeba_twin() { # as many images
    trained celeba-twin celeba64_small --data "$data/celeba64" $faces --set model.kind=ann \
        --set train.warmup_steps=200 $twin_recipe \
        --set train.steps=$(($(cat "$kept/celeba-quantized.steps") + $(cat "$kept/celeba.steps")))
}

places() { # HOME: where code, its commands and runs are
    code=${CODE:-$1/code} runs=$1/runs
    sddpm=${SDDPM:-$code/.venv/bin/sddpm} python=${PYTHON:-$code/.venv/bin/python}
}

case ${1:-} in
pack)
    [ $# -eq 5 ] || refused "pack needs DATA HOME KEPT STAGE"
    places "$3"
    kept=$4
    packed "$5"
    exit ;;
time)
    [ $# -eq 2 ] || refused "time needs HOME"
    for folder in "$2"/runs/*.cpu.d; do
        stage=$(basename "$folder" .cpu.d)
        hours=$(cat "$folder"/*[0-9] | awk '{s += $1} END {printf "%.2f", s / 3600}')
        echo "$stage: $hours core-hours, $(tail -n 1 "$2/runs/$stage/metrics.jsonl" | cut -c1-60)"
    done
    exit ;;
curve)
    [ $# -eq 4 ] || refused "curve needs DATA HOME RESULTS"
    places "$3"
    exec "$python" "$code/benchmarks/cifar10_curve.py" "$2" "$runs" "$4" ;;
esac

[ $# -ge 4 ] || refused "DATA HOME KEPT and a STAGE are needed"
for stage in "${@:4}"; do # all of them, before hours of the first
    case " ${stages[*]} " in
    *" $stage "*) ;;
    *) refused "unknown stage $stage: the stages are ${stages[*]}" ;;
    esac
done
places "$2"
data=$(realpath "$1") kept=$3
pack_seconds=$((${PACK_HOURS:-8} * 3600))
shift 3
mkdir -p "$runs" "$kept"
export OMP_NUM_THREADS=1
renice -n 10 -p $$ >/dev/null
for stage in "$@"; do
    "${stage//-/_}"
done
