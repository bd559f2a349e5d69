// What every CUDA operation is handed: the device's properties, and the stream with its scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/cuda_handles.h"
#include "kernels/cuda_module.h"

namespace shoestring {

// Of one device; made once a backend, then constant.
struct CudaContext {
  int device = 0;
  std::string name;
  int sm_count = 0;
  int64_t workspace_bytes = 0;  // of each stream
};

// Fills `context` and makes the device the calling thread's; false, and `failure`, if it cannot be used.
bool OpenCudaDevice(const CudaBackendOptions& options, CudaContext& context, CudaFailure& failure);

// All devices that are visible, those that cannot be used too.
void DescribeCuda(CudaMachine& machine);

// Scratch of a product: what transposed copies need beyond it is made in several passes, down to 128 x 128 of the
// result.
inline constexpr int64_t kCudaWorkspaceBytes = int64_t{512} << 20;
// Copies up to this size between host and device go through pinned memory of the stream and do not block the host.
inline constexpr int64_t kCudaStagingBytes = int64_t{4} << 20;

// A queue of the device. Its workspace belongs to the operation that was enqueued last: one operation may use all of
// it, and leaves nothing in it for another.
class CudaStream final : public Stream {
 public:
  explicit CudaStream(const CudaContext& context);

  cudaStream_t get() const { return stream_.get(); }
  const CudaContext& context() const { return context_; }
  std::byte* workspace() const { return static_cast<std::byte*>(workspace_.get()); }
  int64_t workspace_bytes() const { return context_.workspace_bytes; }

  void CopyToHost(const void* device, void* host, int64_t bytes);    // complete after Synchronize
  void CopyFromHost(const void* host, void* device, int64_t bytes);  // host bytes may be reused after Synchronize
  void Synchronize();

 private:
  // Staged bytes on their way to the host.
  struct Arrival {
    const std::byte* staged;
    void* host;
    int64_t bytes;
  };
  std::byte* Stage(int64_t bytes);

  const CudaContext& context_;
  CudaStreamHandle stream_;
  DeviceBytes workspace_;
  PinnedBytes staging_;
  int64_t staged_bytes_ = 0;  // since the last Synchronize
  std::vector<Arrival> arrivals_;
};

inline CudaStream& CudaStreamOf(Stream& stream) { return static_cast<CudaStream&>(stream); }

}  // namespace shoestring
