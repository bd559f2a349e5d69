// NCCL's device API, tried with the ranks of one communicator.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <string>

namespace shoestring::probe {

// A kernel writes to every peer through symmetric memory, between two barriers of its own. "works, N peers reachable",
// or what refused and why. The API carries no promise across NCCL versions: the kernel is for the one it was built
// with.
std::string RunLsaKernel(ncclComm_t comm, cudaStream_t stream);

}  // namespace shoestring::probe
