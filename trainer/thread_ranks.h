// A world of ranks as threads of this process.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "parallel/mesh.h"
#include "trainer/rank_links.h"

namespace shoestring {

// Calls body once for each rank of the mesh, on a thread of its own, and returns when all have ended. Where a rank
// fails its links go, and the others soon fail, too: the status is that of the rank that failed first, which is named;
// of a deadline, what all have to say that waited. RESOURCE_EXHAUSTED: the system gives no thread for a rank.
absl::Status RunThreadRanks(const Mesh& mesh, absl::FunctionRef<absl::Status(RankLinks)> body);

}  // namespace shoestring
