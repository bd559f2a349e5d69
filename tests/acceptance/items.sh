# The items of tests/acceptance.sh, one function each; sourced by it.
#
# shellcheck shell=bash disable=SC2034,SC2154
#
# A function item_NAME runs in the root of the clone, appends what its commands say to ${out}, sets `command`, `figure`
# and `required` for the table, and returns 0 for pass. ${scratch} is a folder that is removed at the end.

all_items=(quickstart memory learns parameters one_layer gradients bias speed kill save_kill bad_input tests ci sanitizers
  fp8_quantiser fp8_share fp8_training fp8_speed streaming parity fuzz schedules layouts bundle nccl)

source tests/acceptance/fp8_items.sh

list_items() {
  local item
  for item in "${all_items[@]}"; do
    printf '%-13s %s\n' "${item}" "$(describe "${item}")"
  done
}

is_item() { [[ " ${all_items[*]} " == *" $1 "* ]]; }

describe() {
  case "$1" in
    quickstart) echo "from a clone to a trained model in 15 minutes on 2 cores, at most 5 of them training" ;;
    memory) echo "what the process grows by after the arena is at most 5 % of it" ;;
    learns) echo "validation bits per byte below an interpolated 5-gram model of bytes on the same split" ;;
    parameters) echo "the published parameter counts of DeepSeek-V3 and DeepSeek-V2-Lite" ;;
    one_layer) echo "one layer at 671B widths with 256 experts trains and exports" ;;
    gradients) echo "every layer passes finite-difference checks of input and weight gradients" ;;
    bias) echo "the bias update at least halves the excess of the experts' load, last 100 steps" ;;
    speed) echo "whole steps reach 60 % (FP32) and 45 % (BF16) of the GEMM peak, at two shapes" ;;
    kill) echo "kill -9, resume: the same SHA-256 of weights, moments and data position" ;;
    save_kill) echo "the same with the kill during a save, at each of its file operations" ;;
    bad_input) echo "at least 60 bad inputs, each with its exit code and one line" ;;
    schedules) echo "schedules have the published bubbles and memory; broken programs are found; gradients are exact" ;;
    layouts) echo "any layout gives the bits of one rank, and each rank does its share and no more" ;;
    bundle) echo "the archive for machines with a GPU and nothing else: at most 50 MB, trains in an empty root" ;;
    nccl) echo "the NCCL communicator over a fake of the library: parity, deadlines, aborts, re-creation" ;;
    tests) echo "tests/run.sh passes" ;;
    ci) echo ".ci/run passes in at most 35 minutes" ;;
    sanitizers) echo "the suite is clean under ASan and UBSan" ;;
    fp8_quantiser) echo "codes of all 2^32 FP32 inputs and scales of every tile, against tables and plain loops" ;;
    fp8_share) echo "at least 90 % of the GEMM FLOPs of a tiny_cpu step run on FP8 operands" ;;
    fp8_training) echo "FP8 follows BF16 within 0.25 % over a whole run; with a wrong order of scales it does not" ;;
    fp8_speed) echo "an FP8 step takes at most 1.5 times a BF16 step" ;;
    streaming) echo "export and import of a model that is larger than the memory they are given" ;;
    parity) echo "Hugging Face, PyTorch and tokenizers compute the same, and more slowly" ;;
    fuzz) echo "readers of untrusted files: ten minutes of libFuzzer each without a finding" ;;
  esac
}

program=build/cpu/shoestring
data=.cache/quickstart/data

# logged COMMAND...: runs it, its output into ${out}.
logged() {
  printf '$ %s\n' "$*" >> "${out}"
  "$@" >> "${out}" 2>&1
}

# holds EXPRESSION: a comparison of numbers, as awk reads it; false if a figure is missing.
holds() { awk "BEGIN { exit !($1) }" 2> /dev/null; }

# last PATTERN: the last part of ${out} that the extended regular expression matches.
last() { grep -oE "$1" "${out}" | tail -n 1; }
# number PATTERN: the last number within it.
number() { last "$1" | grep -oE '[0-9]+(\.[0-9]+)?' | tail -n 1; }

build() {
  logged cmake --preset cpu && logged cmake --build --preset cpu --parallel --target "$@"
}

# Text, tokenizer and shards of the quickstart, and its program; one step is trained to get them where it has not run.
need_data() {
  [[ -x "${program}" && -e "${data}/train.meta.json" ]] && return
  printf 'train { phase { name: "one_step" sequence_length: 256 steps: 1 micro_batch: 16 batch { sequences: 16 }
    learning_rate { constant: 1e-3 } } }\n' > "${scratch}/one_step.textproto"
  logged launch/quickstart.sh --config "${scratch}/one_step.textproto" --run-dir "${scratch}/one_step"
}

on_data() {
  printf '%s\n' --set "data.source[0].prefix=\"${data}/train\"" --set "data.validation_prefix=\"${data}/validation\"" \
    --set "data.tokenizer=\"${data}/tokenizer.json\""
}

need_quickstart_run() {
  grep -q '"exit_reason": *"finished"' runs/quickstart/summary.json 2> /dev/null || logged launch/quickstart.sh
}

item_quickstart() {
  local seconds training
  command="launch/quickstart.sh --fresh" required="<= 900 s, of which training <= 300 s"
  local start=${SECONDS}
  logged launch/quickstart.sh --fresh || return 1
  seconds=$((SECONDS - start))
  training=$(number 'trained in [0-9]+ s')
  figure="${seconds} s, training ${training} s; $(last '[0-9.]+ nats/token, [0-9.]+ bits/byte')"
  holds "${seconds} <= 900 && ${training} <= 300"
}

item_memory() {
  local sets percent arena
  command="${program} train --config configs/recipes/tiny_cpu.textproto --max-steps 60"
  required="<= 5 % of the arena; table at start"
  need_data && build shoestring || return 1
  mapfile -t sets < <(on_data)
  # Validation and saves count too.
  sets+=(--set train.validation.interval_steps=20 --set checkpoint.interval_steps=20 --max-steps 60)
  logged "${program}" train --config configs/recipes/tiny_cpu.textproto "${sets[@]}" --run-dir "${scratch}/memory" || return 1
  logged cat "${scratch}/memory/attempt_000/logs/rank_00000.log"
  rm -rf "${scratch}/memory"
  percent=$(grep -oE '^memory: arena .*' "${out}" | grep -oE '[0-9.]+ %\)' | grep -oE '[0-9.]+')
  arena=$(last ' arena +[0-9.]+ MiB' | tr -s ' ')
  figure="${percent} %; table in the log, total${arena}"
  holds "${percent} <= 5" && grep -qE 'purpose +peak' "${out}"
}

item_learns() {
  local ours theirs
  command="byte_ngram train.txt validation.txt" required="ours below the 5-gram model's"
  need_quickstart_run && build byte_ngram || return 1
  logged "$(find build/cpu -name byte_ngram -type f)" "${data}/train.txt" "${data}/validation.txt" || return 1
  theirs=$(number 'ngram_bits_per_byte [0-9.]+')
  ours=$(grep -oE '"val_bits_per_byte":[0-9.]+' runs/quickstart/metrics.jsonl | tail -n 1 | cut -d : -f 2)
  figure="$(awk "BEGIN { printf \"%.4f\", ${ours:-0} }") bits/byte, 5-gram ${theirs}"
  holds "${ours} > 0 && ${ours} < ${theirs}"
}

item_parameters() {
  local config=configs/recipes
  command="${program} config print --config configs/recipes/deepseek_v3_671b.textproto --parameters (and v2_lite_16b)"
  required="671,026,419,200; 36.63 B; 11.61 B; 15.706 B"
  build shoestring || return 1
  local v3 lite
  v3=$("${program}" config print --config ${config}/deepseek_v3_671b.textproto --parameters | tee -a "${out}") || return 1
  lite=$("${program}" config print --config ${config}/v2_lite_16b.textproto --parameters | tee -a "${out}") || return 1
  # Lines read "main model   671,026,419,200".
  of() { grep "^$2" <<< "$1" | grep -oE '[0-9,]+$'; }
  billions() { of "$1" "$2" | tr -d , | awk -v digits="$3" '{ printf "%.*f", digits, $1 / 1e9 }'; }
  figure="$(of "${v3}" 'main model'); $(billions "${v3}" 'activated a token, without' 2) B; $(billions "${v3}" 'unique to MTP' 2) B; $(
    billions "${lite}" 'main model' 3) B"
  [[ "${figure}" == "${required}" ]]
}

item_one_layer() {
  local run=${scratch}/one_layer sets shapes
  command="${program} train --config configs/recipes/one_layer_671b.textproto; checkpoint export-hf"
  required="forward, backward, 2 steps; BF16 export"
  need_data && build shoestring || return 1
  mapfile -t sets < <(on_data)
  logged "${program}" train --config configs/recipes/one_layer_671b.textproto "${sets[@]}" --run-dir "${run}" || return 1
  logged "${program}" checkpoint export-hf "${run}" --output "${run}_hf" --dtype bf16 --tokenizer "${data}/tokenizer.json" \
    || return 1
  logged cat "${run}_hf/config.json" "${run}/attempt_000/logs/rank_00000.log"
  logged ls -l "${run}_hf"
  shapes=$(grep -cE '"hidden_size": 7168|"n_routed_experts": 256|"num_attention_heads": 128' "${run}_hf/config.json")
  figure="$(last 'finished: step [0-9]+'), $(last 'training loss: [0-9.]+'); arena $(number 'memory: arena [0-9.]+') MiB; exported $(
    du -sm --apparent-size "${run}_hf" | cut -f 1) MiB"
  rm -rf "${run}" "${run}_hf"
  [[ "${figure}" == "finished: step 2,"* && "${shapes}" -eq 3 ]]
}

# run_ctest TEST...: builds these tests, each a target of its own, and runs them.
run_ctest() {
  local pattern ran
  pattern="^($(IFS='|'; echo "$*"))\$"
  build "$@" || return 1
  logged ctest --preset cpu --verbose -R "${pattern}" || return 1
  ran=$(number 'tests passed, 0 tests failed out of [0-9]+')
  [[ "${ran}" -eq $# ]]
}

item_schedules() {
  command="ctest --preset cpu -R '^(pipeline_test|launch_schedule_test)$'"
  required="all pass; at least 25 broken programs; what each schedule must show: docs/schedules.md"
  run_ctest pipeline_test launch_schedule_test || return 1
  figure="$(grep -cE '\[       OK \] Programs/BrokenTest' "${out}") broken programs found; \
$(grep -cE '\[       OK \] SimulateTest' "${out}") tests of bubbles and memory"
}

item_layouts() {
  local equal all
  command="tests/layouts.sh" required=">= 150 layouts, all equal to one rank; the others refused"
  logged tests/layouts.sh || return 1
  figure=$(last 'layouts: [0-9]+ of [0-9]+ equal one rank')
  read -r _ equal _ all _ <<< "${figure}"
  holds "${equal:-0} == ${all:-1} && ${all:-0} >= 150"
}

item_gradients() {
  command="ctest --preset cpu -R '^(layers_test|model_test)$'"
  required="all pass; why so much: tests/trainer/model/harness.h"
  run_ctest layers_test model_test || return 1
  figure="$(grep -cE '\[       OK \]' "${out}") cases; tolerance $(grep -oE 'kGradientTolerance = [0-9.e-]+' \
    tests/trainer/model/harness.h | cut -d ' ' -f 3) of the largest element"
}

# load_of RUN: the mean over the last 100 steps of max-over-mean expert load, each a mean over the MoE layers.
load_of() {
  tail -n 100 "$1/metrics.jsonl" | grep -oE '"moe/max_over_mean_load":[0-9.e+]+' | cut -d : -f 2 \
    | awk '{ sum += $1 } END { if (NR == 100) printf "%.3f", sum / NR }'
}

item_bias() {
  local sets with without
  command="${program} train --config configs/recipes/tiny_cpu.textproto --max-steps 200 (and bias_speed 0)"
  required="excess over 1 at most half"
  need_data && build shoestring || return 1
  mapfile -t sets < <(on_data)
  sets+=(--set train.validation.interval_steps=1000 --set checkpoint.interval_steps=0 --max-steps 200)
  logged "${program}" train --config configs/recipes/tiny_cpu.textproto "${sets[@]}" --run-dir "${scratch}/with" || return 1
  logged "${program}" train --config configs/recipes/tiny_cpu.textproto "${sets[@]}" --run-dir "${scratch}/without" \
    --set 'train.bias_speed[0].value=0' || return 1
  with=$(load_of "${scratch}/with")
  without=$(load_of "${scratch}/without")
  figure="load ${with} with, ${without} without: excess $(awk "BEGIN { printf \"%.2f\", (${with} - 1) / (${without} - 1) }") of it"
  holds "${with} >= 1 && ${with} - 1 <= 0.5 * (${without} - 1)"
}

item_speed() {
  local step_speed config shares
  command="step_speed --config configs/recipes/tiny_cpu.textproto (and speed_512)"
  required="FP32 >= 60 %, BF16 >= 45 %, both shapes"
  build step_speed || return 1
  step_speed=$(find build/cpu -name step_speed -type f)
  for config in tiny_cpu speed_512; do
    logged "${step_speed}" --config "configs/recipes/${config}.textproto" || return 1
  done
  shares=$(grep -oE '^[a-z0-9_]+ (FP32|BF16): [0-9.]+ %' "${out}")
  figure=$(tr '\n' ';' <<< "${shares}")
  awk '{ wanted = $2 == "FP32:" ? 60 : 45; bad += $3 < wanted } END { exit !(NR == 4 && bad == 0) }' <<< "${shares}"
}

# digest_of RUN: the SHA-256 of the state in its newest checkpoint.
digest_of() { "${program}" checkpoint check "$1" | tee -a "${out}" | grep -oE '[0-9a-f]{64}' | tail -n 1; }

item_kill() {
  local sets whole killed pid code=0
  command="kill -9 of ${program} train --config tiny_cpu at step 7 to 12 of 16; ${program} resume"
  required="the same SHA-256"
  need_data && build shoestring || return 1
  mapfile -t sets < <(on_data)
  sets+=(--config configs/recipes/tiny_cpu.textproto --set train.validation.interval_steps=8
    --set train.validation.sequences=16 --set checkpoint.interval_steps=6)
  logged "${program}" train "${sets[@]}" --max-steps 16 --run-dir "${scratch}/whole" || return 1
  "${program}" train "${sets[@]}" --max-steps 16 --run-dir "${scratch}/killed" >> "${out}" 2>&1 &
  pid=$!
  while kill -0 "${pid}" 2> /dev/null && [[ ! -e "${scratch}/killed/checkpoints/step_0000006" ]]; do sleep 0.05; done
  sleep 1  # so that work is lost that must be done again
  kill -9 "${pid}" 2> /dev/null
  wait "${pid}" 2> /dev/null || code=$?
  [[ "${code}" -eq 137 ]] || { figure="the run ended with ${code} before it was killed"; return 1; }
  logged "${program}" resume --run-dir "${scratch}/killed" --max-steps 16 || return 1
  grep -q '"generation":1' "${scratch}/killed/metrics.jsonl" || { figure="nothing was resumed"; return 1; }
  whole=$(digest_of "${scratch}/whole")
  killed=$(digest_of "${scratch}/killed")
  figure="undisturbed ${whole:0:16}..., killed ${killed:0:16}..."
  [[ ${#whole} -eq 64 && "${whole}" == "${killed}" ]] || return 1
  rm -rf "${scratch}/whole" "${scratch}/killed"
  logged bash tests/launch/kill_test.sh "${program}" tests/launch/tiny.textproto 20 || return 1
  figure="${figure} and $(number 'killed [0-9]+ times') kills of a small run"
}

item_save_kill() {
  command="ctest --preset cpu -R '^(checkpoint_fault_test|save_kill_test)$'"
  required="a whole checkpoint, the same state after resume"
  run_ctest checkpoint_fault_test save_kill_test || return 1
  figure="$(grep -cE '\[       OK \]' "${out}") cases"
}

item_bad_input() {
  local count failed
  command="tests/launch/bad_input_test.sh ${program} tests/launch/tiny.textproto" required=">= 60 cases, 0 failed"
  build shoestring || return 1
  logged bash tests/launch/bad_input_test.sh "${program}" tests/launch/tiny.textproto
  figure=$(last '[0-9]+ cases, [0-9]+ failed')
  read -r count _ failed _ <<< "${figure}"
  holds "${count:-0} >= 60 && ${failed:-1} == 0"
}

item_bundle() {
  command="tests/gpu/bundle_test.sh build/cpu" required="at most 50000 kB; nothing needed from outside; trains"
  build shoestring nccl_check || return 1
  logged tests/gpu/bundle_test.sh build/cpu || return 1
  figure="$(last '[0-9]+ kB'), $(last '[0-9]+ programs')"
  holds "$(number '[0-9]+ kB') <= 50000"
}

item_nccl() {
  command="ctest --preset cpu -R '^nccl_test$'" required="all pass"
  build nccl_test || return 1
  logged build/cpu/tests/parallel/nccl_test || return 1
  figure=$(last '[0-9]+ tests from [0-9]+ test suites ran')
}

item_tests() {
  command="tests/run.sh" required="all pass"
  local status=0
  logged tests/run.sh || status=$?
  figure="$(last '[0-9]+% tests passed, [0-9]+ tests failed out of [0-9]+'); $(number 'after [0-9]+ s') s"
  return "${status}"
}

# From nothing built, as continuous integration meets it; only a compiler cache may help.
item_ci() {
  local status=0
  command=".ci/run" required="passes in <= 2100 s, from nothing built"
  [[ "${here}" == yes ]] || rm -rf build
  local start=${SECONDS}
  logged .ci/run || status=$?
  figure="$((SECONDS - start)) s; $(last '[0-9]+% tests passed, [0-9]+ tests failed out of [0-9]+')"
  holds "${status} == 0 && $((SECONDS - start)) <= 2100"
}

item_sanitizers() {
  local status=0
  command="tests/sanitize.sh asan" required="clean"
  logged tests/sanitize.sh asan || status=$?
  figure="$(last '[0-9]+% tests passed, [0-9]+ tests failed out of [0-9]+'); $(number 'after [0-9]+ s') s"
  return "${status}"
}
