// One switch over the schedules, one pass, one check.
#include "parallel/pipeline/build.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "parallel/pipeline/build_dualpipe.h"
#include "parallel/pipeline/build_dualpipe_v.h"
#include "parallel/pipeline/build_gpipe.h"
#include "parallel/pipeline/build_interleaved.h"
#include "parallel/pipeline/build_one_f_one_b.h"
#include "parallel/pipeline/build_zb_h1.h"
#include "parallel/pipeline/build_zb_v.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/lower.h"

namespace shoestring {
namespace {

absl::StatusOr<Program> BuildCompute(const config::LayoutConfig& layout, const Mesh& mesh, int64_t micro_batches) {
  const int positions = mesh.pipeline_ranks();
  switch (layout.schedule_case()) {
    case config::LayoutConfig::kGpipe: return BuildGPipe(positions, micro_batches);
    case config::LayoutConfig::SCHEDULE_NOT_SET:
    case config::LayoutConfig::kOneFOneB: return BuildOneFOneB(positions, micro_batches);
    case config::LayoutConfig::kInterleaved:
      if (micro_batches % positions != 0) {
        return absl::InvalidArgumentError(absl::StrCat("interleaved: ", micro_batches, " micro-batches for ", positions,
                                                       " pipeline ranks; say a multiple of ", positions));
      }
      return BuildInterleaved(positions, layout.interleaved().chunks(), micro_batches);
    case config::LayoutConfig::kZbH1: return BuildZbH1(positions, micro_batches);
    case config::LayoutConfig::kZbV: return BuildZbV(mesh, micro_batches);
    case config::LayoutConfig::kDualpipe:
      if (positions % 2 != 0) {
        return absl::InvalidArgumentError(absl::StrCat("dualpipe: ", positions, " pipeline ",
                                                       positions == 1 ? "rank" : "ranks",
                                                       "; say an even number: each rank has a mirror"));
      }
      return BuildDualPipe(mesh, micro_batches);
    case config::LayoutConfig::kDualpipeV: return BuildDualPipeV(mesh, micro_batches);
  }
  return absl::InternalError("a schedule without a builder");
}

}  // namespace

absl::StatusOr<Program> BuildProgram(const config::LayoutConfig& layout, const Mesh& mesh, int64_t micro_batches) {
  if (micro_batches < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(micro_batches, " micro-batches enter the pipeline; say at least one in each direction"));
  }
  ASSIGN_OR_RETURN(const Program compute, BuildCompute(layout, mesh, micro_batches));
  Program program = Lower(compute, mesh);
  const absl::Status right = CheckProgram(program, mesh, std::vector<int64_t>(mesh.directions(), micro_batches));
  if (!right.ok()) return absl::InternalError(absl::StrCat("the builder made a wrong program: ", right.message()));
  return program;
}

}  // namespace shoestring
