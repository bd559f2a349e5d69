// A backend that checks shapes and counts work but computes nothing: what a step needs is measured by running it.
#pragma once

#include <memory>

#include "kernels/backend.h"

namespace shoestring {

// Run with Arena::Measuring(), the trainer's own step yields the exact arena size and the FLOPs of every rank, so that
// neither the memory table nor the budget can drift from what is trained. Touches no tensor memory.
// `like`: the backend whose workspace sizes are asked for; must outlive the result.
std::unique_ptr<Backend> MakeShapeBackend(const Backend& like);

}  // namespace shoestring
