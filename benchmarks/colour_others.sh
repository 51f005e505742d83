#!/bin/sh
# The ANN twin of the shipped fashion-mnist by FSDDIM's protocol, and CelebA: spikes beside their twin.
#
#   benchmarks/colour_others.sh DATA RUNS OUT [SAMPLES]
#
# DATA: folder with fashion-mnist, fad (FSVAE's autoencoder and statistics), celeba64 and the Inception weights
# (inception.pth, or one .pth in inception/). RUNS: the folder runs/ of long_run.sh; what is not finished is left out.
# OUT gets fashion-mnist.json and fashion-twin.json, FAD of 10,000 samples, and celeba.json and celeba-twin.json, FID-768 and KID-768
# of 2,000 samples against 2,000 faces that were not trained on. SAMPLES: fewer, to try it out. Evaluations go on where they
# were stopped.
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

fad="--reference fashion-mnist --data $data/fashion-mnist --split test --protocol fsddim --metric fad
    --fad-weights $data/fad/fashion_64.pth --fad-statistics $data/fad/fashion_test_64.npz --samples ${samples:-10000}"
evaluated fashion-mnist fashion-mnist $fad --solver sde-dpm++ --steps 50 --x0-scale 1.008
evaluated fashion-twin "$runs/fashion-twin" $fad --solver sde-dpm++ --steps 50

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
