// The communicator of a group of one rank: every verb is an exact copy.
#pragma once

#include <memory>

#include "kernels/backend.h"
#include "parallel/communicator.h"

namespace shoestring {

// `backend` makes the copies and must outlive the result. Sums over one member are that member's values, bit for bit.
std::unique_ptr<Communicator> MakeSingleCommunicator(Backend& backend);

}  // namespace shoestring
