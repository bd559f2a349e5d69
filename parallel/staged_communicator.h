// Ranks whose memory is a device's, over a communicator of host memory: data goes by way of the host.
#pragma once

#include <memory>

#include "kernels/backend.h"
#include "parallel/communicator.h"

namespace shoestring {

// A body for views in the memory of `device`, which outlives it. `inner` speaks host memory and ignores streams
// ("thread"); size, index, order of sums, deadlines and errors are its own.
//
// When calls start, the host waits until the stream has brought their inputs; when they are complete, until it has
// taken their outputs. So it needs nothing but a backend, works where several ranks share one device, which NCCL
// refuses, and is slow: for tests and for 'verify' on a GPU. Each group of calls keeps host memory of its own, as large
// as its calls have ever been.
std::unique_ptr<Communicator> MakeStagedCommunicator(std::unique_ptr<Communicator> inner, Backend& device);

}  // namespace shoestring
