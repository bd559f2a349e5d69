# The items of tests/acceptance.sh about number formats and about programs that we did not write; sourced by items.sh,
# whose helpers they use.
#
# shellcheck shell=bash disable=SC2034,SC2154

item_fp8_quantiser() {
  command="ctest --preset cpu -R '^(fp8_codec_test|quantise_test)$'"
  required="all 2^32 inputs, three formats, no mismatch"
  run_ctest fp8_codec_test quantise_test || return 1
  grep -qE '\[       OK \] Fp8CodecTest.EveryInputOfFp32OnTheBestLevel' "${out}" || return 1
  figure="$(grep -cE '\[       OK \]' "${out}") cases; every FP32 input as E4M3, E5M2, E5M6"
}

item_fp8_share() {
  local xml=${scratch}/fp8_share.xml
  command="fp8_test --gtest_filter='*NinetyPercent*'" required=">= 90 %, asserted"
  build fp8_test || return 1
  logged "$(find build/cpu -name fp8_test -type f)" --gtest_filter='*NinetyPercentOfTinyCpusProductsAreFp8' \
    --gtest_output="xml:${xml}" || return 1
  logged cat "${xml}"
  figure="$(awk "BEGIN { printf \"%.2f\", 100 * $(number '"share" value="[0-9.]+') }") % of the FLOPs of products"
  grep -qE '\[  PASSED  \] 1 test' "${out}"
}

fp8_seeds=3
fp8_warm_up=50  # steps: until then the learning rate rises
fp8_wrong_steps=150  # enough to see a mistake

# fp8_run PROGRAM RUN SEED FLAG...: one training run, without checkpoints.
fp8_run() {
  local sets
  mapfile -t sets < <(on_data)
  logged "$1" train --config configs/recipes/tiny_cpu.textproto --config configs/presets/tiny_compare.textproto \
    "${sets[@]}" --set "train.seed=$3" --set checkpoint.interval_steps=0 --run-dir "${scratch}/$2" "${@:4}"
}

# fp8_compare KIND [STEPS]: prints how the losses of the runs KIND_1, KIND_2, ... differ from those of bf16_1, bf16_2, ...
fp8_compare() {
  local seed files=()
  for ((seed = 1; seed <= fp8_seeds; ++seed)); do files+=("${scratch}/bf16_${seed}/metrics.jsonl"); done
  for ((seed = 1; seed <= fp8_seeds; ++seed)); do files+=("${scratch}/$1_${seed}/metrics.jsonl"); done
  printf '%s against bf16\n' "$1" >> "${out}"
  awk -v seeds="${fp8_seeds}" -v warm_up="${fp8_warm_up}" -v steps="${2:-0}" -f tests/acceptance/compare_losses.awk "${files[@]}" \
    | tee -a "${out}"
}

item_fp8_training() {
  local seed wrong good bad
  command="${program} train --config tiny_cpu --config tiny_compare [--config fp8_v3], seeds 1 to ${fp8_seeds}"
  required="< 0.25 %, in the spread; wrong scales fail"
  need_data && build shoestring shoestring_wrong_scales || return 1
  wrong=$(find build/cpu -name shoestring_wrong_scales -type f)
  local fp8=(--config configs/presets/fp8_v3.textproto)
  for ((seed = 1; seed <= fp8_seeds; ++seed)); do
    fp8_run "${program}" "bf16_${seed}" "${seed}" || return 1
    fp8_run "${program}" "fp8_${seed}" "${seed}" "${fp8[@]}" || return 1
    fp8_run "${wrong}" "wrong_${seed}" "${seed}" "${fp8[@]}" --max-steps "${fp8_wrong_steps}" || return 1
  done
  good=$(fp8_compare fp8)
  bad=$(fp8_compare wrong "${fp8_wrong_steps}")
  figure="$(head -n 1 <<< "${good}"); wrong order: $(head -n 1 <<< "${bad}")"
  grep -q '^within' <<< "${good}" && grep -q '^beyond' <<< "${bad}"
}

item_fp8_speed() {
  local ratio
  command="step_speed --config configs/recipes/tiny_cpu.textproto --mode BF16 --mode FP8" required="<= 1.5"
  build step_speed || return 1
  logged "$(find build/cpu -name step_speed -type f)" --config configs/recipes/tiny_cpu.textproto --mode BF16 --mode FP8 \
    || return 1
  ratio=$(number '[0-9.]+ times \(median\)')
  figure=$(last 'an FP8 step takes .*')
  holds "${ratio} > 0 && ${ratio} <= 1.5"
}

# The limit is on what the process allocates (ulimit -d); a model as FP32 is five times as large.
item_streaming() {
  local sets limit_kib=16384 run=${scratch}/streaming model
  command="ulimit -d ${limit_kib}; checkpoint export-hf, import-hf (F32 and FP8); ctest -R '^hf_memory_test$'"
  required="the same weights; model > 4 x limit"
  need_data && build shoestring && run_ctest hf_memory_test || return 1
  mapfile -t sets < <(on_data)
  logged "${program}" train --config configs/recipes/tiny_cpu.textproto "${sets[@]}" --max-steps 1 \
    --set train.validation.interval_steps=1000 --run-dir "${run}" || return 1
  (
    ulimit -d "${limit_kib}"
    logged "${program}" checkpoint export-hf "${run}" --output "${run}_f32" --dtype f32 || exit 1
    logged "${program}" checkpoint import-hf --from "${run}_f32" --config configs/recipes/tiny_cpu.textproto "${sets[@]}" \
      --run-dir "${run}_again" || exit 1
    logged "${program}" checkpoint export-hf "${run}_again" --output "${run}_f32_again" --dtype f32 || exit 1
    logged "${program}" checkpoint export-hf "${run}" --output "${run}_fp8" --dtype fp8 || exit 1
    logged "${program}" checkpoint import-hf --from "${run}_fp8" --config configs/recipes/tiny_cpu.textproto "${sets[@]}" \
      --run-dir "${run}_fp8_again" || exit 1
  ) || return 1
  model=$(du -sk --apparent-size "${run}_f32" | cut -f 1)
  figure="model $((model / 1024)) MiB as FP32, limit $((limit_kib / 1024)) MiB"
  logged diff -r "${run}_f32" "${run}_f32_again" && [[ "${model}" -gt $((4 * limit_kib)) ]]
}

item_parity() {
  local status=0
  command="tests/parity/run.sh" required="all of docs/parity.md"
  need_data || return 1
  logged tests/parity/run.sh --log "${log}/parity" || status=$?
  figure="$(last 'run.sh: .*' | cut -d ';' -f 1); $(grep -hE '^(FP32|BF16): ' "${log}/parity/throughput.txt" | cut -d '(' -f 1 \
    | tr '\n' ' ')"
  return "${status}"
}

item_fuzz() {
  local status=0
  command="tests/fuzz.sh --seconds 600" required="six targets, 600 s each, no finding"
  logged tests/fuzz.sh --seconds 600 || status=$?
  figure="$(grep -cE '^[a-z_]+ +clean ' "${out}") clean, $(grep -cE '^[a-z_]+ +FINDING ' "${out}") with findings"
  return "${status}"
}
