# What the tests of the command line share: a folder with a tiny corpus, tokenizer, shards and config. Sourced by bash.

# make_fixture PROGRAM CONFIG FOLDER: fills the folder and goes there; `shoestring` is the program from then on.
make_fixture() {
  program=$(realpath "$1")
  local config
  config=$(realpath "$2")
  mkdir -p "$3"
  cd "$3"
  cp "${config}" tiny.textproto
  awk 'BEGIN {
    split("the a dog cat runs sits on under big small house tree and then it was said that many men went out", word, " ")
    for (d = 1; d <= 200; ++d) {
      line = ""
      for (w = 1; w <= 40; ++w) line = line word[1 + (d * 7 + w * w * 3 + d * w) % 20] (w % 9 == 0 ? ".\\n" : " ")
      printf "{\"text\": \"%s\"}\n", line
    }
  }' > corpus.jsonl
  shoestring data tokenizer-train --input corpus.jsonl --vocab-size 300 --output data.tokenizer.json > /dev/null
  mkdir -p data
  mv data.tokenizer.json data/tokenizer.json
  shoestring data prepare --config tiny.textproto --input corpus.jsonl --validation-fraction 0.1 > /dev/null
}

# in_fixture PROGRAM CONFIG: the same in a folder of ${root}, which is temporary and goes with the script.
in_fixture() {
  root=$(mktemp -d)
  trap 'rm -rf "${root}"' EXIT
  make_fixture "$1" "$2" "${root}/work"
}

# fail TEXT: ends the test, in its name.
fail() {
  echo "$(basename "$0" .sh): $1"
  exit 1
}

shoestring() { "${program}" "$@"; }

# stop_after STEP SIGNAL RUN FLAG...: sends the signal to a training run when it has done the step; it must end with 75.
stop_after() {
  local step=$1 signal=$2 run=$3 pid code=0
  "${program}" train "${@:4}" --run-dir "${run}" > /dev/null 2>&1 &
  pid=$!
  until grep -q "\"step\":${step}," "${run}/metrics.jsonl" 2> /dev/null; do sleep 0.05; done
  kill "-${signal}" "${pid}"
  wait "${pid}" || code=$?
  [[ "${code}" -eq 75 ]] || fail "SIG${signal} ended ${run} (${*:4}) with ${code}, not 75"
}

# The SHA-256 of the state in a run's newest checkpoint.
digest_of() { shoestring checkpoint check "$1" | grep -oE '[0-9a-f]{64}' | tail -n 1; }
