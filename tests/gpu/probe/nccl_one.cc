// The probe's items about NCCL with one rank: how long it takes to begin, and what its own copies cost.
#include <nccl.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/gpu/probe/fill.h"
#include "tests/gpu/probe/nccl_lsa.h"
#include "tests/gpu/probe/report.h"

namespace shoestring::probe {
namespace {

void Check(ncclResult_t result, const char* what) {
  if (result != ncclSuccess) {
    throw Failure(absl::StrCat(what, ": ", ncclGetErrorString(result), ": ", ncclGetLastError(nullptr)));
  }
}

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

// A blocking communicator of one rank.
class OneRank {
 public:
  OneRank() {
    ncclUniqueId id;
    Check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    CheckCuda(cudaSetDevice(0), "cudaSetDevice");
    Check(ncclCommInitRank(&comm_, 1, id, 0), "ncclCommInitRank");
    CheckCuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  ~OneRank() {
    cudaStreamDestroy(stream_);
    ncclCommDestroy(comm_);
  }
  ncclComm_t comm() const { return comm_; }
  cudaStream_t stream() const { return stream_; }

 private:
  ncclComm_t comm_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

void ProbeNcclOne() {
  const auto begin = std::chrono::steady_clock::now();
  const OneRank one;
  Answer("nccl", "one rank: time to join", Figure(Seconds(begin) * 1e3, "ms"));
  constexpr size_t kBytes = size_t{1} << 30;
  const Buffer from(kBytes), to(kBytes);
  FillBf16(one.stream(), from.as(), kBytes / 2, 1);
  const double self_ms = MedianMs(one.stream(), [&] {
    Check(ncclGroupStart(), "ncclGroupStart");
    Check(ncclSend(from.as(), kBytes, ncclUint8, 0, one.comm(), one.stream()), "ncclSend");
    Check(ncclRecv(to.as(), kBytes, ncclUint8, 0, one.comm(), one.stream()), "ncclRecv");
    Check(ncclGroupEnd(), "ncclGroupEnd");
  });
  Answer("nccl", "one rank: 1 GiB sent to itself, bytes read and written",
         absl::StrFormat("%.0f GB/s", 2.0 * kBytes / self_ms / 1e6));
  const double small_ms = MedianMs(one.stream(), [&] {
    Check(ncclAllReduce(from.as(), to.as(), 1024, ncclFloat32, ncclSum, one.comm(), one.stream()), "ncclAllReduce");
  });
  Answer("nccl", "one rank: all-reduce of 4 KiB, launch and run", Figure(small_ms * 1e3, "us"));
}

void ProbeNcclLsa() {
  const OneRank one;
  Answer("nccl", "device API (load and store to peers), one rank", RunLsaKernel(one.comm(), one.stream()));
}

}  // namespace shoestring::probe
