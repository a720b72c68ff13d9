#!/usr/bin/env bash
# The default loop and its shuffled control over three seeds, the checker as judge over one, and the tables of README.md in this folder.
#   docs/experiments/loop/run.sh [FOLDER]        runs are kept in FOLDER (default: experiment-loop) and continue there
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
runs="${1:-experiment-loop}"
mkdir -p "$runs"
for seed in 0 1 2; do
    illume-loop start --run-dir "$runs/self-$seed" --seed "$seed"
    illume-loop start --run-dir "$runs/shuffled-$seed" --seed "$seed" --config "$root/configs/control-shuffled.toml"
done
illume-loop start --run-dir "$runs/checker-0" --config "$root/configs/control-checker.toml"
python "$here/measure.py" "$runs"/self-{0,1,2}
python "$here/measure.py" "$runs"/shuffled-{0,1,2}          # what the gate made active: the base where it rejected all
python "$here/measure.py" "$runs"/shuffled-{0,1,2}:v0002    # the first candidates, whatever the gate said
python "$here/measure.py" "$runs/checker-0"
