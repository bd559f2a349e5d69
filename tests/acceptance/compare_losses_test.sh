#!/usr/bin/env bash
# compare_losses.awk over curves of known distance, and over runs that lack what it compares.
set -euo pipefail
cd "$(dirname "$0")"
root=$(mktemp -d)
trap 'rm -rf "${root}"' EXIT

# run NAME FACTOR VAL_LOSS [LOSS_OF_STEP_8]: the metrics of ten steps; without a value where it is empty.
run() {
  awk -v factor="$2" -v validation="$3" -v eighth="${4-0.5}" 'BEGIN {
    for (t = 1; t <= 10; ++t) {
      loss = t == 8 && eighth != 0.5 ? eighth : factor * (4 - t / 10)
      printf "{\"step\":%d%s%s}\n", t, loss == "" ? "" : ",\"loss\":" loss,
             t == 10 && validation != "" ? ",\"val_loss\":" validation : ""
    }
  }' > "${root}/$1"
}
# says REGEX CODE FLAG... FILE...: the first line and the exit code of a comparison after two steps of warm-up.
says() {
  local regex=$1 code=$2 got=0 line
  line=$(cd "${root}" && awk -v warm_up=2 -v seeds=2 -f "${OLDPWD}/compare_losses.awk" "${@:3}" | head -n 1) || got=$?
  [[ "${line}" =~ ${regex} && "${got}" -eq "${code}" ]] || { echo "'${*:3}': ${got}, '${line}', not '${regex}'"; exit 1; }
}

run a1 1 3.00
run a2 1 3.10
run near1 1.001 3.02
run near2 1.001 3.04
run far1 1.01 3.02
run outside 1.001 3.50
run silent 1 ""
run hole 1 3.00 ""
run null 1 3.00 null
says '^within: largest 0.100 %, mean 0.100 %; validation 3.0300, reference 3.0500, spread 0.1000$' 0 a1 a2 near1 near2
says '^beyond: largest 0.550 %' 0 a1 a2 far1 near2
says '^beyond: largest 0.100 %' 0 a1 a2 near1 outside
says '^error: run 4 has no val_loss$' 1 a1 a2 near1 silent
says '^error: run 1 has no val_loss$' 1 silent silent silent silent
says '^within: largest 0.000 %' 0 -v steps=9 silent silent silent silent
says '^error: step 8 is missing$' 1 a1 hole near1 near2
says '^error: step 8 is missing$' 1 a1 a2 null near2
says '^error: 3 runs, not 4$' 1 a1 a2 near1
says '^error: there are 2 steps, and 2 of them warm up$' 1 -v steps=2 a1 a2 near1 near2
echo "compare_losses_test: good"
