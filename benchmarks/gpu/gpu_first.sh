#!/usr/bin/env bash
# The first fifteen minutes on a GPU, the start of its machine included: checks, speed, a contest of methods.
#   bash benchmarks/gpu/gpu_first.sh OUT [PART]     PART: a (at most 7 minutes), b (at most 5), or both
# OUT gets checks.json, gpu.json and contest.json, each written anew after every section, so that whatever cuts
# the program leaves what was measured. The exit status is 1 where a section failed, or a program was cut.
# From the environment: DATASET for part b, CIFAR-10 as for lasat_ray.train (parquet:PATH); SITE, the archive that
# benchmarks/gpu/offline_environment.sh packs, where the machine lacks its packages; PYTHON; MORE="--tiny --device
# cpu" tries all of it on a processor, SCALE=5 with five times the seconds, where it is busy.
set -uo pipefail
out=${1:?usage: gpu_first.sh OUT [a|b|both]}
part=${2:-both}
python=${PYTHON:-python3}
read -ra more <<< "${MORE:-}"
case $part in a | b | both) ;; *) echo "gpu_first.sh: PART '$part' is unknown; give a, b or both" >&2; exit 2 ;; esac
cd "$(dirname "$0")/../.." || exit 2
mkdir -p "$out"
if [ -n "${SITE:-}" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m tarfile -e "$SITE" "$site" || exit 2
  export PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
fi
status=0

# measure NAME SECONDS ARGUMENTS...: one program, which begins nothing after SECONDS and is ended a minute later.
measure() {
  local name=$1 seconds=$(($2 * ${SCALE:-1})) program=$3
  shift 3
  echo "== $name: $seconds s"
  timeout -k 10 $((seconds + 60)) "$python" -m "benchmarks.gpu.$program" --out "$out/$name.json" \
    --budget-seconds "$seconds" "${more[@]}" "$@" || { echo "== $name: FAILED, status $?"; status=1; }
}

if [ "$part" != b ]; then
  nvidia-smi 2> /dev/null || echo "no nvidia-smi here"
  measure checks 150 first_checks
  measure gpu 210 gpu
fi
if [ "$part" != a ]; then
  if [ -n "${DATASET:-}" ]; then
    measure contest 270 first_contest --dataset "$DATASET"
  else
    measure contest 270 first_contest
  fi
fi
exit $status
