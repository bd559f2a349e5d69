#!/usr/bin/env bash
# Ranks on devices: each opens its own from the CUDA module; here one whose device is the CPU in truth.
#
#   tests/launch/device_test.sh PROGRAM CONFIG MODULE
set -euo pipefail
source "$(dirname "$0")/fixture.sh"
module=$(realpath "$3")
in_fixture "$1" "$2"

config=(--config tiny.textproto --set train.lanes=4 --set 'train.phase[0].batch.sequences=16'
  --set 'train.phase[1].batch.sequences=16')
on_device=(--set layout.device=CUDA)
on_four=(--set layout.pipeline_ranks=2 --set layout.stages=2 --set layout.data_ranks=2 --set layout.expert_ranks=2
  --set layout.zero1=true)

# No module: nothing is read, nothing takes its place.
export SHOESTRING_CUDA_MODULE=absent.so
code=0
shoestring verify "${config[@]}" "${on_device[@]}" --against one-rank > out.txt 2> err.txt || code=$?
[[ "${code}" -eq 78 && ! -s out.txt ]] || fail "without a module: ${code}, $(cat out.txt)"
grep -q "layout.device: CUDA: absent.so: the CUDA module cannot be read" err.txt || fail "$(cat err.txt)"

export SHOESTRING_CUDA_MODULE=${module}
shoestring train "${config[@]}" --run-dir cpu > cpu.txt 2> log.txt
shoestring train "${config[@]}" "${on_device[@]}" "${on_four[@]}" --run-dir devices > devices.txt 2> log.txt
[[ "$(digest_of devices)" == "$(digest_of cpu)" ]] || fail "four ranks with devices end with other bits"
grep -q "sm_90a" devices/summary.json devices/attempt_000/logs/rank_00000.log || fail "no device is named"

shoestring verify "${config[@]}" "${on_device[@]}" "${on_four[@]}" --against one-rank --write-golden device.golden \
  > four.txt 2> log.txt
head -n 1 four.txt | grep -qx "equal: 4 ranks give the bits of one rank in 2 steps" || fail "$(cat four.txt)"
grep -q "; sm_90a$" four.txt || fail "no device: $(cat four.txt)"
shoestring verify "${config[@]}" "${on_device[@]}" --set layout.data_ranks=4 --against device.golden > golden.txt
head -n 1 golden.txt | grep -qx "equal: 4 ranks give the bits of device.golden in 2 steps" || fail "$(cat golden.txt)"

# What one kind of device computed is no measure for another.
shoestring verify "${config[@]}" --write-golden cpu.golden 2> log.txt
code=0
shoestring verify "${config[@]}" "${on_device[@]}" --against cpu.golden > out.txt 2> err.txt || code=$?
[[ "${code}" -eq 65 ]] && grep -qE "cpu.golden: was made with .*, this is sm_90a" err.txt || fail "${code}: $(cat err.txt)"
code=0
shoestring verify "${config[@]}" --against device.golden > out.txt 2> err.txt || code=$?
[[ "${code}" -eq 65 ]] && grep -q "device.golden: was made with sm_90a" err.txt || fail "${code}: $(cat err.txt)"
echo "device_test: passed"
