// Opening a device, and the copies of a stream.
#include "kernels/cuda/cuda_context.h"

#include <cstring>

namespace shoestring {
namespace {

constexpr int kArrivals = 1024;  // so many small copies to the host wait at once before one goes directly

bool Fail(CudaFailure& failure, CudaFailure::Kind kind, const std::string& message) {
  failure = {kind, message};
  return false;
}

bool Unavailable(CudaFailure& failure, const std::string& what) {
  return Fail(failure, CudaFailure::Kind::kUnavailable, "CUDA: " + what + ", or set layout.device=CPU");
}

std::string Describe(cudaError_t error) { return std::string(cudaGetErrorString(error)); }

// Whether there is a driver that serves this runtime, and a device.
bool CountDevices(int& count, CudaFailure& failure) {
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return true;
  (void)cudaGetLastError();
  if (error == cudaErrorNoDevice || error == cudaSuccess) {
    return Unavailable(failure, "this machine shows no NVIDIA GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES");
  }
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return Unavailable(failure,
                       "there is no NVIDIA driver (" + Describe(error) + "); install one of release 580 or later");
  }
  if (error == cudaErrorInsufficientDriver) {
    return Unavailable(failure, "the NVIDIA driver serves CUDA " + std::to_string(driver / 1000) + "." +
                                    std::to_string(driver % 1000 / 10) + " only; install one of release 580 or later");
  }
  return Unavailable(failure, "the devices cannot be counted (" + Describe(error) + "); look at nvidia-smi");
}

}  // namespace

bool OpenCudaDevice(const CudaBackendOptions& options, CudaContext& context, CudaFailure& failure) {
  int count = 0;
  if (!CountDevices(count, failure)) return false;
  const int device = options.shared ? options.device % count : options.device;
  const std::string which = "device " + std::to_string(device);
  if (device < 0 || device >= count) {
    return Unavailable(failure, which + " was asked for and " + std::to_string(count) +
                                    " are visible; use fewer ranks a node, or look at CUDA_VISIBLE_DEVICES");
  }
  cudaDeviceProp properties;
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, device);
  if (error == cudaSuccess) error = cudaFree(nullptr);  // makes the device's context: fails here, if it does
  if (error != cudaSuccess) {
    return Unavailable(failure, which + " cannot be used (" + Describe(error) + "); look at nvidia-smi");
  }
  if (properties.major != 9 || properties.minor != 0) {
    return Unavailable(failure, which + " is " + properties.name + " of compute capability " +
                                    std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                                    ", and the code here is for 9.0 (H100, H800, H200, H20); use one of those");
  }
  context.device = device;
  context.name = properties.name;
  context.sm_count = properties.multiProcessorCount;
  context.workspace_bytes = options.workspace_bytes < 0 ? kCudaWorkspaceBytes : options.workspace_bytes;
  return true;
}

void DescribeCuda(CudaMachine& machine) {
  int count = 0;
  if (cudaDriverGetVersion(&machine.driver) != cudaSuccess) machine.driver = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    machine.devices.push_back(
        {properties.name, static_cast<int64_t>(properties.totalGlobalMem), properties.major, properties.minor});
  }
  (void)cudaGetLastError();  // what is absent here is no failure of what comes next
}

CudaStream::CudaStream(const CudaContext& context)
    : context_(context),
      stream_(MakeCudaStream()),
      workspace_(TakeDeviceBytes(context.workspace_bytes)),
      staging_(TakePinnedBytes(kCudaStagingBytes)) {
  if (!workspace_) {
    internal::CheckFailed(__FILE__, __LINE__,
                          "the device has no " + std::to_string(context.workspace_bytes) +
                              " bytes left for a stream's workspace; use a smaller model or micro-batch");
  }
  arrivals_.reserve(kArrivals);
}

// Null if there is no room before the next Synchronize.
std::byte* CudaStream::Stage(int64_t bytes) {
  constexpr int64_t kAlignment = 64;
  const int64_t taken = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (taken > kCudaStagingBytes - staged_bytes_) return nullptr;
  std::byte* place = static_cast<std::byte*>(staging_.get()) + staged_bytes_;
  staged_bytes_ += taken;
  return place;
}

void CudaStream::CopyToHost(const void* device, void* host, int64_t bytes) {
  if (bytes == 0) return;
  std::byte* staged = arrivals_.size() < kArrivals ? Stage(bytes) : nullptr;
  CUDA_CHECK(cudaMemcpyAsync(staged != nullptr ? staged : host, device, bytes, cudaMemcpyDeviceToHost, get()));
  if (staged != nullptr) arrivals_.push_back({staged, host, bytes});
}

void CudaStream::CopyFromHost(const void* host, void* device, int64_t bytes) {
  if (bytes == 0) return;
  if (std::byte* staged = Stage(bytes)) {
    std::memcpy(staged, host, bytes);
    host = staged;
  }
  CUDA_CHECK(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, get()));
}

void CudaStream::Synchronize() {
  CUDA_CHECK(cudaStreamSynchronize(get()));
  for (const Arrival& arrival : arrivals_) std::memcpy(arrival.host, arrival.staged, arrival.bytes);
  arrivals_.clear();
  staged_bytes_ = 0;
}

}  // namespace shoestring
