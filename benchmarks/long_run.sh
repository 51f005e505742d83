#!/usr/bin/env bash
# Long trainings on a CPU, one stage after another, each going on where it was stopped.
#
#   benchmarks/long_run.sh DATA HOME KEPT STAGE...     run stages to their end, one after another
#   benchmarks/long_run.sh pack DATA HOME KEPT STAGE   pack a stage's newest checkpoint into KEPT/STAGE (half precision)
#   benchmarks/long_run.sh time HOME                   core-hours and images of every stage so far
#
# DATA: folder with cifar10 and celeba64. HOME: folder with code/ (a frozen copy of this repository with its environment in
# code/.venv, or wherever SDDPM names a command) and runs/. KEPT: folder that outlives HOME, for packed checkpoints.
#
# One thread, at low priority. A stage that has a run folder is resumed to the same bits; one whose folder is gone goes on
# from the checkpoint packed in KEPT, not to the same bits: runs/STAGE.unpacked then says from which step. CPU seconds are
# written to runs/STAGE.cpu, a line a process, so that a stage's cost is known however often it was interrupted.
set -euo pipefail

cpu_seconds() { # pid -> CPU seconds that it has taken, with its threads
    awk -v tick="$(getconf CLK_TCK)" '{sub(/.*\) /, ""); print ($12 + $13) / tick}' "/proc/$1/stat"
}

counted() { # stage, command...: run it; its CPU seconds so far stand in runs/STAGE.cpu
    local stage=$1 pid file
    shift
    "$@" & pid=$!
    trap 'kill -TERM $pid 2>/dev/null; wait $pid || true; exit 143' TERM INT
    file="$runs/$stage.cpu.d/$(date +%s)-$pid"
    mkdir -p "$runs/$stage.cpu.d"
    while kill -0 $pid 2>/dev/null; do
        cpu_seconds $pid >"$file.new" 2>/dev/null && mv "$file.new" "$file"
        sleep 5
    done
    trap - TERM INT
    wait $pid
}

trained() { # stage, arguments of `sddpm train` -> the run to its end, from its newest checkpoint on
    local stage=$1 run=$runs/$1
    shift
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
}

# 4.2 million parameters at 2 x 2 patches; classes, a tenth of them hidden; its weights are kept every 500 steps.
network="--set model.base_channels=64 --set model.channel_mult=[1,2,2] --set model.num_classes=10
    --set train.ema_decay=0.999 --set train.checkpoint_every=500 --set train.keep_checkpoints=200
    --set train.sample_every=0 --set train.log_every=100"

leg_a_quantized() {
    trained leg-a-quantized cifar10_small --data "$data/cifar10" $network --set model.kind=quantized \
        --set train.lr=1.5e-3 --set train.warmup_steps=200 --set train.steps=38000
}

leg_a() {
    [ -d "$runs/leg-a-converted" ] || "$sddpm" convert-ann "$runs/leg-a-quantized" "$runs/leg-a-converted" --T 4
    trained leg-a "$runs/leg-a-converted/config.yaml" --data "$data/cifar10" --init-from "$runs/leg-a-converted" \
        --set train.lr=6e-4 --set train.warmup_steps=100 --set train.seed=1 --set train.steps=6000
}

case ${1:-} in
pack)
    data=$2 runs=$3/runs kept=$4 stage=$5
    "${SDDPM:-$3/code/.venv/bin/sddpm}" pack "$runs/$stage" "$kept/$stage" --half --max-part 4MB --force
    exit ;;
time)
    for folder in "$2"/runs/*.cpu.d; do
        stage=$(basename "$folder" .cpu.d)
        hours=$(cat "$folder"/*[0-9] | awk '{s += $1} END {printf "%.2f", s / 3600}')
        echo "$stage: $hours core-hours, $(tail -n 1 "$2/runs/$stage/metrics.jsonl" | cut -c1-60)"
    done
    exit ;;
esac

data=$(realpath "$1") runs=$2/runs kept=$3
sddpm=${SDDPM:-$2/code/.venv/bin/sddpm}
shift 3
mkdir -p "$runs" "$kept"
export OMP_NUM_THREADS=1
renice -n 10 -p $$ >/dev/null
for stage in "$@"; do
    "${stage//-/_}"
done
