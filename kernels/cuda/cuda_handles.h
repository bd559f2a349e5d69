// Owners of what the CUDA runtime gives: streams, events, memory. Movable, never copied; given back at the end.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/cuda/cuda_check.h"

namespace shoestring {

// `Free` gives back a handle; its error is ignored, because at the end of a process the driver may be gone already.
template <typename Handle, cudaError_t (*Free)(Handle)>
class CudaHandle {
 public:
  CudaHandle() = default;
  explicit CudaHandle(Handle handle) : handle_(handle) {}
  CudaHandle(CudaHandle&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  CudaHandle& operator=(CudaHandle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~CudaHandle() {
    if (handle_ != nullptr) Free(handle_);
  }
  Handle get() const { return handle_; }
  explicit operator bool() const { return handle_ != nullptr; }

 private:
  Handle handle_ = nullptr;
};

using CudaStreamHandle = CudaHandle<cudaStream_t, cudaStreamDestroy>;
using DeviceBytes = CudaHandle<void*, cudaFree>;
using PinnedBytes = CudaHandle<void*, cudaFreeHost>;

// A stream that does not wait for the default one.
inline CudaStreamHandle MakeCudaStream() {
  cudaStream_t stream = nullptr;
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return CudaStreamHandle(stream);
}

// Plain device memory. Null, and no error left behind, if there is not so much; size_bytes > 0.
inline DeviceBytes TakeDeviceBytes(int64_t size_bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(size_bytes));
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return {};
  }
  CUDA_CHECK(error);
  return DeviceBytes(data);
}

// Memory of the host that copies need not stage.
inline PinnedBytes TakePinnedBytes(int64_t size_bytes) {
  void* data = nullptr;
  CUDA_CHECK(cudaMallocHost(&data, static_cast<size_t>(size_bytes)));
  return PinnedBytes(data);
}

}  // namespace shoestring
