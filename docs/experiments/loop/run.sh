#!/usr/bin/env bash
# The default loop over three seeds, its shuffled control and the checker as judge over one, and the tables of README.md in this folder.
#   docs/experiments/loop/run.sh [FOLDER]        runs are kept in FOLDER (default: experiment-loop) and continue there
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
runs="${1:-experiment-loop}"
mkdir -p "$runs"
for seed in 0 1 2; do
    illume-loop start --run-dir "$runs/self-$seed" --seed "$seed"
done
illume-loop start --run-dir "$runs/shuffled-0" --config "$root/configs/control-shuffled.toml"
illume-loop start --run-dir "$runs/checker-0" --config "$root/configs/control-checker.toml"
python "$here/measure.py" "$runs"/self-{0,1,2}
# Candidates, whatever the gate said of them.
python "$here/measure.py" "$runs/shuffled-0:v0002" "$runs/shuffled-0:v0004" "$runs/checker-0:v0002"
