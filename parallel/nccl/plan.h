// Which NCCL calls and copies a group of calls becomes: a pure function of shapes and offsets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "parallel/communicator_call.h"
#include "parallel/nccl/library.h"

namespace shoestring {

// One NCCL call. `count` is bytes, but of sums elements of `type`.
struct NcclOp {
  enum class Kind { kSend, kReceive, kAllReduce, kReduceScatter, kAllGather, kBroadcast };
  Kind kind = Kind::kSend;
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  size_t count = 0;
  int peer = 0;  // of sends and receives: the other member; of a broadcast: its root
  NcclType type = NcclType::kU8;
  friend bool operator==(const NcclOp&, const NcclOp&) = default;
};

// What one group of calls puts on a stream. Kept and made again, so that later steps allocate nothing.
struct NcclPlan {
  std::vector<NcclCopy> before;  // views with gaps between their rows are packed into the staging memory,
  std::vector<NcclOp> ops;
  std::vector<NcclCopy> after;  // and unpacked from there

  void Clear();
};

// Bytes of staging memory that the calls need: those of all views with gaps, each aligned to 256.
int64_t NcclStagingBytes(absl::Span<const Call> calls);

// Arguments have passed Communicator's checks. Calls of the group become operations in their order:
//   all_to_all_v     sends and receives, to and from every member in turn, beginning with the next one, so that not all
//                    members address the same one first; nothing for empty parts; a member's rows for itself are sent
//                    too, NCCL copies them;
//   all_gather_v     one all-gather where all members bring the same number of rows, else a broadcast from each;
//   others           themselves; nothing without elements.
void MakeNcclPlan(int index, int size, absl::Span<const Call> calls, std::byte* staging, NcclPlan& plan);

}  // namespace shoestring
