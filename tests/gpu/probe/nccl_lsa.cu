// The kernel on NCCL's device API, and its host side.
#include <nccl.h>
#include <nccl_device.h>

#include <vector>

#include "tests/gpu/probe/nccl_lsa.h"

namespace shoestring::probe {
namespace {

constexpr size_t kBytes = 1 << 20;

// Peer p finds 1000 + rank in word `rank` of its window.
__global__ void TellPeers(ncclDevComm comm, ncclWindow_t window) {
  const ncclTeam team = ncclTeamLsa(comm);
  ncclLsaBarrierSession<ncclCoopCta> barrier(ncclCoopCta(), comm, ncclTeamTagLsa(), blockIdx.x);
  barrier.sync(ncclCoopCta(), cuda::memory_order_relaxed);
  for (int peer = threadIdx.x; peer < team.nRanks; peer += blockDim.x) {
    static_cast<int*>(ncclGetLsaPointer(window, 0, peer))[team.rank] = 1000 + team.rank;
  }
  barrier.sync(ncclCoopCta(), cuda::memory_order_release);
}

std::string Refused(const char* what, ncclResult_t result) {
  return std::string(what) + " refused: " + ncclGetErrorString(result) + ": " + ncclGetLastError(nullptr);
}

std::string RunWithWindow(ncclComm_t comm, cudaStream_t stream, void* memory, ncclWindow_t window) {
  ncclDevCommRequirements wanted{};
  wanted.lsaBarrierCount = 1;
  ncclDevComm device{};
  if (const ncclResult_t result = ncclDevCommCreate(comm, &wanted, &device); result != ncclSuccess) {
    return Refused("ncclDevCommCreate", result);
  }
  TellPeers<<<1, 32, 0, stream>>>(device, window);
  cudaError_t error = cudaGetLastError();
  std::vector<int> words(ncclTeamLsa(comm).nRanks, -1);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  if (error == cudaSuccess) {
    error = cudaMemcpy(words.data(), memory, words.size() * sizeof(int), cudaMemcpyDeviceToHost);
  }
  ncclDevCommDestroy(comm, &device);
  if (error != cudaSuccess) return std::string("the kernel failed: ") + cudaGetErrorString(error);
  for (size_t rank = 0; rank < words.size(); ++rank) {
    if (words[rank] != 1000 + static_cast<int>(rank)) {
      return "wrong: word " + std::to_string(rank) + " is " + std::to_string(words[rank]);
    }
  }
  return "works, " + std::to_string(words.size()) + " peers reachable";
}

}  // namespace

std::string RunLsaKernel(ncclComm_t comm, cudaStream_t stream) {
  void* memory = nullptr;
  if (const ncclResult_t result = ncclMemAlloc(&memory, kBytes); result != ncclSuccess) {
    return Refused("ncclMemAlloc", result);
  }
  cudaMemset(memory, 0xff, kBytes);
  cudaDeviceSynchronize();
  ncclWindow_t window = nullptr;
  std::string answer;
  const ncclResult_t result = ncclCommWindowRegister(comm, memory, kBytes, &window, NCCL_WIN_COLL_SYMMETRIC);
  if (result != ncclSuccess || window == nullptr) {
    answer =
        result == ncclSuccess ? "ncclCommWindowRegister gave no window" : Refused("ncclCommWindowRegister", result);
  } else {
    answer = RunWithWindow(comm, stream, memory, window);
    ncclCommWindowDeregister(comm, window);
  }
  ncclMemFree(memory);
  return answer;
}

}  // namespace shoestring::probe
