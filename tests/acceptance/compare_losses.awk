# Compares the training losses of two precisions, seed by seed, smoothed by an exponential average.
#
#   awk -v seeds=3 -v warm_up=50 [-v steps=N] -f compare_losses.awk A1 ... A_seeds B1 ... B_seeds
#
# Each file is the metrics.jsonl of a run, A's of the reference; A_i and B_i are of the same seed. The first line says
# `within` or `beyond`: after `warm_up` steps the smoothed loss, averaged over the seeds, differs by less than 0.25 % at
# every step, and the mean validation losses differ by no more than those of the reference's seeds among themselves.
# Then a line a seed, whose own difference no rule bounds. With `steps` only the losses of the first N are compared.
# What cannot be compared, for a step or a run has no number, is said in one line, `error: ...`, and the exit code is 1.
function number(line, name) {
  return match(line, "\"" name "\":[-+0-9.eE]+") ? substr(line, RSTART + length(name) + 3, RLENGTH - length(name) - 3) : ""
}
function abs(x) { return x < 0 ? -x : x }
function percent(x) { return sprintf("%.3f %%", 100 * x) }

FNR == 1 { ++run; smooth = 0; weight = 0 }
{
  step = number($0, "step") + 0
  if (steps == 0 || step <= steps) last = step > last ? step : last
  if ((v = number($0, "loss")) != "") {
    # EMA 0.9, divided by the sum of its weights, so that it is an average from the first step on.
    smooth = 0.9 * smooth + 0.1 * v
    weight = 0.9 * weight + 0.1
    curve[run, step] = smooth / weight
  }
  if ((v = number($0, "val_loss")) != "") validation[run] = v + 0
}
END {
  if (run != 2 * seeds) { print "error: " run " runs, not " 2 * seeds; exit 1 }
  if (last <= warm_up) { print "error: there are " last + 0 " steps, and " warm_up " of them warm up"; exit 1 }
  for (r = 1; steps == 0 && r <= run; ++r) {
    if (!(r in validation)) { print "error: run " r " has no val_loss"; exit 1 }
  }
  for (t = warm_up + 1; t <= last; ++t) {
    ours = theirs = 0
    for (s = 1; s <= seeds; ++s) {
      if (!((s, t) in curve) || !((seeds + s, t) in curve)) { print "error: step " t " is missing"; exit 1 }
      difference = curve[seeds + s, t] / curve[s, t] - 1
      if (abs(difference) > worst[s]) worst[s] = abs(difference)
      total[s] += abs(difference) / (last - warm_up)
      theirs += curve[s, t] / seeds
      ours += curve[seeds + s, t] / seeds
    }
    difference = abs(ours / theirs - 1)
    if (difference > worst_mean) worst_mean = difference
    total_mean += difference / (last - warm_up)
  }
  for (s = 1; s <= seeds; ++s) {
    if (low == "" || validation[s] < low) low = validation[s]
    if (high == "" || validation[s] > high) high = validation[s]
    mean_a += validation[s] / seeds
    mean_b += validation[seeds + s] / seeds
  }
  good = worst_mean < 0.0025 && (steps > 0 || abs(mean_b - mean_a) <= high - low)
  printf "%s: largest %s, mean %s; validation %.4f, reference %.4f, spread %.4f\n", good ? "within" : "beyond",
         percent(worst_mean), percent(total_mean), mean_b, mean_a, high - low
  for (s = 1; s <= seeds; ++s) {
    printf "seed %d: largest %s, mean %s; validation %.4f, reference %.4f\n", s, percent(worst[s]), percent(total[s]),
           validation[seeds + s], validation[s]
  }
}
