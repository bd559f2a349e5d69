// Layouts of every schedule, for tests that hold them all to the same rules.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/check.h"
#include "parallel/pipeline/build.h"

namespace shoestring {

// Interleaved has `chunks` stages a position.
inline config::LayoutConfig LayoutOf(absl::string_view schedule, int positions, int chunks = 2) {
  config::LayoutConfig layout;
  layout.set_pipeline_ranks(positions);
  int per_position = 1;
  if (schedule == "gpipe") {
    layout.mutable_gpipe();
  } else if (schedule == "one_f_one_b") {
    layout.mutable_one_f_one_b();
  } else if (schedule == "interleaved") {
    layout.mutable_interleaved()->set_chunks(chunks);
    per_position = chunks;
  } else if (schedule == "zb_h1") {
    layout.mutable_zb_h1();
  } else if (schedule == "zb_v") {
    layout.mutable_zb_v();
    per_position = 2;
  } else if (schedule == "dualpipe") {
    layout.mutable_dualpipe();
  } else {
    CHECK(schedule == "dualpipe_v");
    layout.mutable_dualpipe_v();
    per_position = 2;
  }
  layout.set_stages(per_position * positions);
  return layout;
}

// A schedule at a size that it takes; `micro_batches` of each direction.
struct PipelineCase {
  std::string schedule;
  int positions = 1;
  int64_t micro_batches = 1;
  int chunks = 2;

  config::LayoutConfig layout() const { return LayoutOf(schedule, positions, chunks); }
  Mesh mesh() const { return *Mesh::Create(layout()); }
  Program program() const {
    const absl::StatusOr<Program> program = BuildProgram(layout(), mesh(), micro_batches);
    CHECK(program.ok());
    return *program;
  }
  std::string name() const {
    return schedule + "_p" + std::to_string(positions) + "_m" + std::to_string(micro_batches) +
           (schedule == "interleaved" ? "_v" + std::to_string(chunks) : "");
  }
};

// Every schedule at every size of the two lists that it takes; interleaved with 2 and with 3 chunks.
inline std::vector<PipelineCase> PipelineCases(const std::vector<int>& positions,
                                               const std::vector<int64_t>& micro_batches) {
  std::vector<PipelineCase> cases;
  for (const char* schedule : {"gpipe", "one_f_one_b", "interleaved", "zb_h1", "zb_v", "dualpipe", "dualpipe_v"}) {
    const std::string name = schedule;
    for (int p : positions) {
      for (int64_t m : micro_batches) {
        if (name == "dualpipe" && p % 2 != 0) continue;
        if (name == "interleaved" && m % p != 0) continue;
        cases.push_back({name, p, m});
        if (name == "interleaved") cases.push_back({name, p, m, 3});
      }
    }
  }
  return cases;
}

}  // namespace shoestring
