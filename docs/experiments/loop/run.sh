#!/usr/bin/env bash
# The default loop over three seeds, its two controls, and the tables of README.md in this folder.
#   docs/experiments/loop/run.sh [FOLDER]        runs are kept in FOLDER (default: experiment-loop) and continue there
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
runs="${1:-experiment-loop}"
mkdir -p "$runs"
for seed in 0 1 2; do
    illume-loop start --run-dir "$runs/self-$seed" --seed "$seed"
done
for control in shuffled checker; do
    illume-loop start --config "$root/configs/control-$control.toml" --run-dir "$runs/$control"
done
python "$here/measure.py" "$runs"/self-{0,1,2}
python "$here/measure.py" "$runs/shuffled" "$runs/checker"
