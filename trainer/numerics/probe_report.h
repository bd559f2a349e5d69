// What the numerics probe found, as an aligned table, as JSON and as a page.
#pragma once

#include <string>

#include "trainer/numerics/probe.h"

namespace shoestring {

// What was looked at; for headings.
struct ProbeSubject {
  std::string checkpoint;  // its directory
  int64_t step = 0;
  std::string data;  // where the tokens came from
};

// "31.4", "exact" (+infinity), "lost" (-infinity: all of the reference is 0), "NaN".
std::string SnrText(double snr_db);

// "0.25%" of all choices at gates are not the reference's; "-": there are no gates.
std::string RoutingText(const PresetResult& preset);

// Median and worst signal-to-noise of a group's tensors; `tensor`: the worst one. Both NaN if a tensor is not finite;
// +infinity if the group has none.
struct GroupSummary {
  double median_db = 0;
  double worst_db = 0;
  std::string tensor;
};
GroupSummary Summarise(const PresetResult& preset, TensorGroup group);

// Indices into the first preset's tensors, the worst over all presets first; at most `count`, and none that is exact
// in all of them.
std::vector<size_t> WorstTensors(const ProbeResult& result, size_t count);

// Summaries of the presets; the ten worst tensors; of the operands the ten of which most underflows.
std::string ProbeTable(const ProbeResult& result, const ProbeSubject& subject);
// docs/numerics_probe.md describes it.
std::string ProbeJson(const ProbeResult& result, const ProbeSubject& subject);
// One file: figures, curves over depth (SVG), every tensor.
std::string ProbePage(const ProbeResult& result, const ProbeSubject& subject);

}  // namespace shoestring
