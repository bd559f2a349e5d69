#!/usr/bin/env bash
# The verb `schedule`: summary, text, verdict, JSON and picture of a program; and what is said of flags that do not fit.
#
#   tests/launch/schedule_test.sh PROGRAM CONFIG
set -euo pipefail
program=$(realpath "$1")
golden=$(realpath tests/parallel/golden)
root=$(mktemp -d)
trap 'rm -rf "${root}"' EXIT
cd "${root}"
fail() {
  echo "schedule_test: $1"
  exit 1
}
schedule() { "${program}" schedule "$@"; }

# refused CODE REGEX FLAGS...: the verb must end with CODE and one line like REGEX, and print nothing.
refused() {
  local code=$1 regex=$2 got=0
  shift 2
  schedule "$@" > out 2> err || got=$?
  [[ "${got}" -eq "${code}" ]] || fail "'$*' ended with ${got}, not ${code}: $(cat err)"
  [[ "$(wc -l < err)" -eq 1 && ! -s out ]] || fail "'$*' said more than a line: $(cat out err)"
  grep -qE -- "${regex}" err || fail "'$*' said nothing like '${regex}': $(cat err)"
}

dualpipe=(--kind dualpipe --stages 8 --microbatches 20)
schedule "${dualpipe[@]}" --svg dualpipe.svg > summary.txt
head -n 1 summary.txt | grep -qx "dualpipe: 8 positions, 8 stages, 10 micro-batches in each direction" ||
  fail "the first line: $(head -n 1 summary.txt)"
grep -qx "time 66, bubble 9.09 %, at most 9 micro-batches of a stage live at a position" summary.txt ||
  fail "the last line: $(tail -n 1 summary.txt)"
[[ "$(awk '$1 ~ /^[0-7]$/ { print $3 + $4, $4 + $5 + $6, $8 }' summary.txt | sort -u)" == "20 20 60" ]] ||
  fail "not every position has 20 forwards, 20 backwards and computes for 60"
grep -q "bubble 9.1 %" dualpipe.svg || fail "the picture does not say the bubble"
[[ "$(tail -n 1 dualpipe.svg)" == "</svg>" ]] || fail "the picture does not end"

# (PP / 2 - 1)(F&B + B - 3W) at other costs; the positions in the middle wait so long.
schedule "${dualpipe[@]}" --forward 2 --backward-input 2 --backward-weight 1 --overlapped-share 0.9 > costs.txt
awk '$1 == 3 { exit !($9 == 3 * (0.9 * 5 + 3 - 3)) } END { if (NR == 0) exit 1 }' costs.txt ||
  fail "the bubble of position 3: $(grep -E '^ +3 ' costs.txt)"

# Golden texts are what the verb prints, each with the words in its first line.
for file in "${golden}"/*.txt; do
  read -r -a words < <(sed -n '1s/^# shoestring schedule //p' "${file}")
  schedule "${words[@]}" > printed.txt
  grep -v '^#' "${file}" | cmp - printed.txt || fail "$(basename "${file}") is not what is printed"
  schedule "${words[@]/--print/--check}" --program "${file}" > verdict.txt
  grep -qE '^right: .* actions$' verdict.txt || fail "the verdict on $(basename "${file}"): $(cat verdict.txt)"
done
schedule --kind dualpipe --stages 2 --microbatches 4 --json | cmp - "${golden}/dualpipe_p2_m2.json"

# A program of one's own: simulated if right, refused with its first mistake if not.
line=(--kind one_f_one_b --stages 2 --microbatches 1)
schedule "${line[@]}" --print > own.txt
schedule "${line[@]}" --program own.txt | grep "^time 6," > /dev/null || fail "an own program is not simulated"
sed -i 's/ SB1.0>0//' own.txt
refused 1 "own.txt: deadlock: position 0 waits in RB0.0<1 \(action 2\)$" "${line[@]}" --program own.txt --check
refused 1 "own.txt: deadlock" "${line[@]}" --program own.txt --svg own.svg
[[ ! -e own.svg ]] || fail "a wrong program was drawn"
echo "0: F0.0 X0.0" > own.txt
refused 65 "own.txt: line 1: no action: 'X0.0'" "${line[@]}" --program own.txt
refused 74 "absent.txt" "${line[@]}" --program absent.txt
refused 74 "nowhere/own.svg" "${line[@]}" --svg nowhere/own.svg

refused 64 "kind.*see 'shoestring schedule --help'"
refused 64 "kind dualpip: no schedule, did you mean dualpipe\?; there are: gpipe" --kind dualpip --stages 2 --microbatches 4
refused 64 "kind stages: no schedule" --kind stages --stages 2 --microbatches 4
refused 64 "stages 0: at least 1" --kind gpipe --stages 0 --microbatches 4
refused 64 "stages 4097: .* at most 4096" --kind gpipe --stages 4097 --microbatches 4
refused 64 "stages 5: zb_v has 2 stages a position; say a multiple of 2" --kind zb_v --stages 5 --microbatches 4
refused 64 "stages 8: interleaved has 3 stages a position" --kind interleaved --stages 8 --chunks 3 --microbatches 4
refused 64 "chunks 1: interleaved needs 2" --kind interleaved --stages 8 --chunks 1 --microbatches 4
refused 64 "chunks is for interleaved" --kind gpipe --stages 8 --chunks 2 --microbatches 4
refused 64 "microbatches 0: at least 1" --kind gpipe --stages 2 --microbatches 0
refused 64 "microbatches 1000000000000: with 2 stages at most 1000000" --kind gpipe --stages 2 --microbatches 1000000000000
refused 64 "microbatches 7: dualpipe sends half of them each way; say an even number" --kind dualpipe --stages 2 --microbatches 7
refused 64 "dualpipe: 3 pipeline ranks; say an even number" --kind dualpipe --stages 3 --microbatches 8
refused 64 "interleaved: 3 micro-batches for 2 pipeline ranks; say a multiple of 2" \
  --kind interleaved --stages 4 --microbatches 3
refused 64 "forward -1: no time" "${dualpipe[@]}" --forward=-1
refused 64 "message inf: no time" "${dualpipe[@]}" --message inf
refused 64 "soon.*--reduce" "${dualpipe[@]}" --reduce soon
refused 64 "say one of them" "${dualpipe[@]}" --print --json
echo "schedule_test: passed"
