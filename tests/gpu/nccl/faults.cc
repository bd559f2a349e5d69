// A rank that dies in the middle of a step, seen by the others.
#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "tests/gpu/nccl/items.h"

namespace shoestring::gpu {
namespace {

absl::Status AllReduceOne(RankContext& context, Communicator& comm, double timeout_s, float want) {
  DeviceMatrix x(context, 1, 1);
  x.Write({1});
  RETURN_IF_ERROR(comm.AllReduce(context.stream(), x.view(), {"heartbeat", timeout_s}));
  const float got = x.Read()[0];
  RETURN_IF_ERROR(comm.failure());
  if (got != want) return absl::UnavailableError(absl::StrCat("the sum is ", got, ", must be ", want));
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckFaults(RankContext& context) {
  constexpr double kTimeout_s = 4;
  const int ranks = context.options().ranks;
  ASSIGN_OR_RETURN(std::unique_ptr<Communicator> comm, context.Join(ranks, 1));
  RETURN_IF_ERROR(AllReduceOne(context, *comm, context.options().timeout_s, static_cast<float>(ranks)));
  if (context.options().rank == ranks - 1) {
    std::fflush(nullptr);
    _exit(0);  // as a crash: nothing is said to anybody
  }
  const double began_s = RealClock().MonotonicSeconds();
  DeviceMatrix x(context, 1, 1);
  x.Write({1});
  absl::Status status = comm->AllReduce(context.stream(), x.view(), {"the step of the crash", kTimeout_s});
  context.Synchronize();  // the abort must let go of the stream
  if (status.ok()) status = comm->AllReduce(context.stream(), x.view(), {"the next step", kTimeout_s});
  const double took_s = RealClock().MonotonicSeconds() - began_s;
  if (status.ok()) return absl::InternalError("a rank died, and the others were not told");
  if (took_s > 2 * kTimeout_s + 5) {
    return absl::InternalError(absl::StrCat("a rank died, and the others were told only after ", took_s, " s"));
  }
  if (context.options().rank == 0) {
    std::printf("| nccl | a dead rank is noticed after | %.2f s (deadline %.0f s): %s |\n", took_s, kTimeout_s,
                std::string(status.message()).c_str());
  }
  comm.reset();
  ASSIGN_OR_RETURN(comm, context.Join(ranks - 1, 2));
  return AllReduceOne(context, *comm, context.options().timeout_s, static_cast<float>(ranks - 1));
}

}  // namespace shoestring::gpu
