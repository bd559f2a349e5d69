// Makes the model of a config small and leaves its parallelism as it is, so that a layout for thousands of ranks can be
// verified on little.
#pragma once

#include "configs/schema/run.pb.h"

namespace shoestring {

// `config` has one phase, which the validator found right; so is the result. Kept: mesh, schedule and its program,
// exchange, lanes and expert lanes, micro-batches, routing groups and chosen experts, precision, recompute, optimizer,
// MTP depth. Made small: widths, heads, vocabulary, sequence length; routed experts to the fewest that the expert ranks
// and the groups divide; layers to one of each kind that a stage has; a growing batch stays at its first size; and
// init_std grows with the square root of the width that was cut, so that layers still move the residual stream.
// Ranks compute on the CPU.
config::RunConfig Shrink(const config::RunConfig& config);

}  // namespace shoestring
