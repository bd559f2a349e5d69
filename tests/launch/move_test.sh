#!/usr/bin/env bash
# A run that stops on one layout and goes on on another ends with the bits of the run that never moved.
#
#   move_test.sh PROGRAM CONFIG
set -euo pipefail
source "$(dirname "$0")/fixture.sh"
in_fixture "$1" "$2"

# Four lanes, so that four ranks can share a step; six layers for four stages.
config=(--config tiny.textproto --set model.layers=6 --set train.lanes=4 --set 'train.phase[0].batch.sequences=16'
  --set 'train.phase[1].batch.sequences=16')
on_four=(--set layout.pipeline_ranks=2 --set layout.stages=2 --set layout.data_ranks=2 --set layout.expert_ranks=2
  --set layout.zero1=true)
on_pipeline=(--set layout.pipeline_ranks=4 --set layout.stages=4 --set layout.data_ranks=1 --set layout.expert_ranks=1
  --set layout.zero1=false --set 'layout.zb_h1={}')
on_one=(--set layout.pipeline_ranks=1 --set layout.stages=1 --set layout.data_ranks=1 --set 'layout.one_f_one_b={}')

expect_equal() {
  [[ "$2" == "$3" ]] || { echo "move_test: $1: $2 is not $3" >&2; exit 1; }
  echo "move_test: $1: $2"
}

shoestring train "${config[@]}" --run-dir never_moved > never_moved.txt 2> log.txt
want=$(digest_of never_moved)

shoestring train "${config[@]}" "${on_four[@]}" --run-dir four > four.txt 2> log.txt
expect_equal "four ranks" "$(digest_of four)" "${want}"

# A rank alone may hold several stages; it comes from a pipeline that cuts between the same layers.
on_v=(--set layout.pipeline_ranks=1 --set layout.stages=2 --set 'layout.zb_v={}' --set layout.zero1=false)
shoestring train "${config[@]}" "${on_v[@]}" --run-dir folded --max-steps 7 > folded.txt 2> log.txt
shoestring resume --run-dir folded "${on_pipeline[@]}" --max-steps 14 >> folded.txt 2> log.txt
shoestring resume --run-dir folded "${on_v[@]}" --set layout.data_ranks=1 >> folded.txt 2> log.txt
expect_equal "folded" "$(digest_of folded)" "${want}"

shoestring train "${config[@]}" "${on_four[@]}" --run-dir moved --max-steps 7 > moved.txt 2> log.txt
shoestring resume --run-dir moved "${on_pipeline[@]}" --max-steps 14 >> moved.txt 2> log.txt
shoestring resume --run-dir moved "${on_one[@]}" >> moved.txt 2> log.txt
expect_equal "moved twice" "$(digest_of moved)" "${want}"

# What only the layout changes must not reach the outcome: same losses, same files.
expect_equal "loss" "$(grep '^training loss' four.txt)" "$(grep '^training loss' never_moved.txt)"
expect_equal "validation" "$(grep '^validation loss' four.txt)" "$(grep '^validation loss' never_moved.txt)"
