// The exchange that a rank's layout asks for.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "configs/schema/parallel.pb.h"
#include "parallel/communicator.h"
#include "parallel/exchange_geometry.h"
#include "parallel/expert_exchange.h"
#include "parallel/mesh.h"

namespace shoestring {

// For one expert rank: LocalExchange. Else `group` is the communicator of mesh.ExpertGroup(rank), which must outlive
// the result, as must the memory of `arena`; with one that measures the result sizes things and does nothing.
// `options.buffer_factor` is the layout's. INVALID_ARGUMENT if experts do not divide, or, with TWO_HOP, machines are
// not whole.
absl::StatusOr<std::unique_ptr<ExpertExchange>> MakeExchange(const config::LayoutConfig& layout, const Mesh& mesh,
                                                             Rank rank, const ExchangeShape& shape,
                                                             ExchangeOptions options, Communicator& group,
                                                             Arena& arena);

}  // namespace shoestring
