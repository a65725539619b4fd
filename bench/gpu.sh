#!/usr/bin/env bash
# The bench of one GPU: sections with a time limit each, JSON after each, a page at the end. Under 9 minutes.
#
#   bench/gpu.sh                 OUT=folder: where JSON and page go (bench/out/gpu); PYTHON: the interpreter
#   WHEELS=folder bench/gpu.sh   installs from there, without a network, what a bare machine lacks
#                                (pydantic and what it needs; scipy)
#   bench/gpu.sh --smoke         everything tiny on a CPU, to see that it runs
#   bench/gpu.sh parity race     these sections alone
#
# Needs PyTorch, Triton, transformers, NumPy, pyarrow and safetensors; neither Ray nor a network.
set -u
cd "$(dirname "$0")/.."
out=$(mkdir -p "${OUT:-bench/out/gpu}" && cd "${OUT:-bench/out/gpu}" && pwd)
python=${PYTHON:-python3}
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
export PYTHONPATH=$PWD:$packages PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
smoke=()
if [ "${1:-}" = --smoke ]; then
    smoke=(--smoke)
    export TRITON_INTERPRET=1
    shift
fi
if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install --quiet --no-index --find-links "$WHEELS" --target "$packages" "$WHEELS"/*.whl
fi

declare -A limits=(
    [ceilings]=40 [parity]=85 [race]=150 [profile]=45 [actor]=75 [drills]=55 [training]=65
)
for section in ${@:-ceilings parity race profile actor drills training}; do
    limit=${limits[$section]:?no such section: $section}
    [ ${#smoke[@]} -gt 0 ] && limit=900 # the interpreter of kernels is slow
    echo "== $section, at most $limit s"
    # A section that repeats stops 15 s before it is stopped.
    timeout --kill-after=5 "$limit" \
        "$python" -m "bench.gpu.sections.$section" --output "$out/$section.json" \
        --seconds $((limit - 15)) "${smoke[@]}" || echo "== $section ended with status $?"
done
date=$(date -u +%F)
"$python" -m bench.gpu.report "$out" --date "$date" --output "$out/gpu-$date.md" || exit
if [ ${#smoke[@]} -eq 0 ]; then
    cp "$out/gpu-$date.md" bench/results/
fi
