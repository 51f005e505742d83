#!/bin/sh
# The ANN twin of the shipped fashion-mnist by FSDDIM's protocol, and CelebA: spikes beside their twin.
#
#   benchmarks/colour_others.sh DATA RUNS OUT [SAMPLES]
#
# DATA: folder with fashion-mnist, fad (FSVAE's autoencoder and statistics), celeba64 and the Inception weights
# (inception.pth, or one .pth in inception/). RUNS: the folder runs/ of long_run.sh; what is not finished is left out.
# OUT gets fashion-mnist.json and fashion-twin.json, FAD of 10,000 samples, each with the x0_scale of least KAD of 500
# samples of other seeds against training images; and celeba.json and celeba-twin.json, FID-768 and KID-768 of 2,000
# samples against 2,000 faces that were not trained on. SAMPLES: fewer, to try it out. Evaluations go on where they were
# stopped.
set -eu
data=$1 runs=$2 out=$3 samples=${4:-}
mkdir -p "$out"

evaluated() { # name, model, options: its JSON in OUT, unless it is there
    name=$1 model=$2
    shift 2
    [ ! -f "$out/$name.json" ] || return 0
    case $model in "$runs"/*)
        state=$(python "$(dirname "$0")/trainings.py" "$model")
        [ "$state" = finished ] || return 0 ;;
    esac
    sddpm evaluate "$model" "$@" --interval --work "$out/work" --out "$out/$name.json"
}

best_scale() { # name -> the x0_scale that was tried for it with the least KAD
    python3 -c 'import json, sys
kad = {file: json.load(open(file))["metrics"]["kad"]["value"] for file in sys.argv[1:]}
print(min(kad, key=kad.get).rpartition("-x0-")[2].removesuffix(".json"))' "$out/$1"-x0-*.json
}

# Each of the two has the x0_scale that is best for it.
against="--reference fashion-mnist --data $data/fashion-mnist --protocol fsddim --solver sde-dpm++ --steps 50
    --fad-weights $data/fad/fashion_64.pth"
trial="$against --split train --metric kad --samples ${samples:-500} --seed 1000000 --no-copies"
fad="$against --split test --metric fad --fad-statistics $data/fad/fashion_test_64.npz --samples ${samples:-10000}"
for fashion in fashion-mnist "$runs/fashion-twin"; do
    of=$(basename "$fashion")
    for scale in 1 1.004 1.008 1.012; do
        evaluated "$of-x0-$scale" "$fashion" $trial --x0-scale $scale
    done
    [ ! -f "$out/$of-x0-1.json" ] || evaluated "$of" "$fashion" $fad --x0-scale "$(best_scale "$of")"
done

# The faces beyond the first 8,000 by name, as --set data.limit=8000 leaves them out.
held=$out/held-out.zip
[ -f "$held" ] || python3 - "$data"/celeba64/*.zip "$held" <<'END'
import os, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as faces, zipfile.ZipFile(sys.argv[2] + ".new", "w") as held:
    for name in sorted(name for name in faces.namelist() if name.endswith(".jpg"))[8000:]:
        held.writestr(name, faces.read(name))
os.replace(sys.argv[2] + ".new", sys.argv[2])
END
inception=$(ls "$data"/inception*.pth "$data"/inception/*.pth 2>/dev/null | head -n 1)
for name in celeba celeba-twin; do
    evaluated $name "$runs/$name" --reference "$held" --crop center148 --image-size 64 --metric fid,kid \
        --dim "${DIM:-768}" --inception "$inception" --samples "${samples:-2000}" --solver dpm++ --steps 20 --no-copies
done
