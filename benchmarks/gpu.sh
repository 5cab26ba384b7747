#!/usr/bin/env bash
# Builds bigft for the GPU of this machine, tests it, checks it with compute-sanitizer and measures it,
# all within BUDGET seconds (580). A stage that fails or runs out of time does not keep the next ones
# from running; the table of stages comes last, and the exit status is 1 if any stage was not ok.
#
#   PYTHON   the interpreter that has torch with CUDA (python3), and what bigft and its tests need
#            besides: numpy, pydantic, pyyaml, rich, hypothesis, pytest, pybind11, ninja
#   OUT      folder for rows, pictures and gpu.log, the output of every stage (benchmarks/results)
#   BUDGET   seconds for everything
set -euo pipefail

PYTHON=${PYTHON:-python3}
BUDGET=${BUDGET:-580}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=${OUT:-benchmarks/results}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
LOG=$OUT/gpu.log
: >"$LOG"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

stages=()
all_ok=true

# stage NAME LIMIT COMMAND...: at most LIMIT seconds, and no more than what is left of BUDGET.
stage() {
  local name=$1 limit=$2 start=$SECONDS left=$((BUDGET - SECONDS)) status=0 verdict=ok output
  shift 2
  if ((left < 5)); then
    verdict="SKIPPED: no time left"
  else
    ((limit <= left)) || limit=$left
    echo "==> $name (at most $limit s)"
    output=$(mktemp)
    timeout --kill-after=5 "$limit" "$@" >"$output" 2>&1 || status=$?
    { echo "==> $name: $*"; cat "$output"; echo; } >>"$LOG"
    case $status in
      0) ;;
      124 | 137) verdict="OUT OF TIME" ;;
      *) verdict="FAILED ($status)" ;;
    esac
    [[ $verdict == ok ]] || tail -n 12 "$output"
    rm -f "$output"
  fi
  [[ $verdict == ok ]] || all_ok=false
  stages+=("$(printf '%-34s %5d s  %s' "$name" $((SECONDS - start)) "$verdict")")
}

# No caching: each tensor is an allocation of its own, so that reading past one is seen.
sanitize() {
  stage "compute-sanitizer $1" 70 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
    compute-sanitizer --tool "$@" --error-exitcode 1 "$PYTHON" benchmarks/small_shapes.py cuda
}

measure() {
  stage "measure $1" "$2" "$PYTHON" "benchmarks/bench_$1.py" --device cuda --out "$OUT"
}

stage "the machine" 30 "$PYTHON" -c '
import torch
print(torch.__version__, torch.cuda.get_device_name())
print("{}.{}".format(*torch.cuda.get_device_capability()))'
# The last line it printed; empty where there is no GPU, and then the build says what it lacks.
TORCH_CUDA_ARCH_LIST=$(grep -Ex '[0-9]+\.[0-9]+' "$LOG" | tail -n 1 || true)
export TORCH_CUDA_ARCH_LIST

stage "build" 240 env BIGFT_CUDA=1 "$PYTHON" setup.py build_ext --inplace
# pytest is content with tests that all skip, as they do where torch sees no GPU; this is not.
# shellcheck disable=SC2016  # $0 is for the inner shell
stage "tests" 120 bash -o pipefail -c \
  '"$0" -m pytest -q -m gpu tests/ops | tee /dev/stderr | grep "[1-9][0-9]* passed"' "$PYTHON"
sanitize memcheck --kernel-name kernel_substring=bigft
sanitize racecheck --kernel-name kernel_substring=bigft
# Of all kernels: what torch's own have written counts as initialised only if they are watched.
sanitize initcheck
measure masked_cross_entropy 90
measure token_classification_head 60
measure linear_cross_entropy 240

shopt -s nullglob
for operator in masked_cross_entropy token_classification_head linear_cross_entropy; do
  files=("$OUT/${operator}"_*.csv)
  ((${#files[@]} == 0)) || "$PYTHON" benchmarks/report.py "${files[-1]}" || all_ok=false
done
echo
printf '%s\n' "${stages[@]}"
echo "$SECONDS s in all; rows, pictures and gpu.log are in $OUT"
$all_ok
