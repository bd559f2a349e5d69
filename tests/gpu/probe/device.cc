// The probe's items about the machine itself: device, libraries, copies.
#include <cublasLt.h>
#include <cudnn.h>
#include <nccl.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/gpu/probe/fill.h"
#include "tests/gpu/probe/report.h"

namespace shoestring::probe {
namespace {

// 13000 is CUDA 13.0.
std::string CudaVersion(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

void AnswerCopy(const char* how, double bytes_moved, double ms) {
  Answer("copy", how, absl::StrFormat("%.0f GB/s (%.2f GB in %.3f ms)", bytes_moved / ms / 1e6, bytes_moved / 1e9, ms));
}

}  // namespace

void ProbeDevice() {
  int driver = 0, runtime = 0, nccl = 0;
  CheckCuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  CheckCuda(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  ncclGetVersion(&nccl);
  const size_t cublas = cublasLtGetVersion();
  cudaDeviceProp device;
  CheckCuda(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  size_t free = 0, total = 0;
  CheckCuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  Answer("device", "name", absl::StrCat(device.name, ", compute capability ", device.major, ".", device.minor));
  Answer("device", "multiprocessors; L2; shared memory a block",
         absl::StrCat(device.multiProcessorCount, "; ", device.l2CacheSize >> 20, " MiB; ",
                      device.sharedMemPerBlockOptin >> 10, " KiB"));
  Answer("device", "memory, and free now", absl::StrFormat("%.1f GiB, %.1f GiB", total / 0x1p30, free / 0x1p30));
  Answer("device", "CUDA of the driver; of the runtime", absl::StrCat(CudaVersion(driver), "; ", CudaVersion(runtime)));
  Answer("device", "cuBLASLt; cuDNN; NCCL",
         absl::StrCat(cublas / 10000, ".", cublas / 100 % 100, ".", cublas % 100, "; ", cudnnGetVersion() / 10000, ".",
                      cudnnGetVersion() / 100 % 100, ".", cudnnGetVersion() % 100, "; ", nccl / 10000, ".",
                      nccl / 100 % 100, ".", nccl % 100));
}

// Bytes read and bytes written both count.
void ProbeCopy() {
  constexpr int64_t kBytes = int64_t{4} << 30;
  cudaDeviceProp device;
  CheckCuda(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  cudaStream_t stream = nullptr;
  CheckCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  {
    const Buffer from(kBytes), to(kBytes);
    FillBf16(stream, from.as(), kBytes / 2, 1);
    AnswerCopy("device to device, cudaMemcpyAsync", 2.0 * kBytes, MedianMs(stream, [&] {
                 cudaMemcpyAsync(to.as(), from.as(), kBytes, cudaMemcpyDeviceToDevice, stream);
               }));
    for (const int per_sm : {2, 4, 8}) {
      const int blocks = device.multiProcessorCount * per_sm;
      AnswerCopy(absl::StrCat("device to device, kernel of 16-byte accesses, ", per_sm, " blocks an SM").c_str(),
                 2.0 * kBytes, MedianMs(stream, [&] { CopyByKernel(stream, from.as(), to.as(), kBytes, blocks); }));
    }
    AnswerCopy("device, cudaMemsetAsync", 1.0 * kBytes,
               MedianMs(stream, [&] { cudaMemsetAsync(to.as(), 0x5a, kBytes, stream); }));
  }
  constexpr int64_t kHostBytes = int64_t{256} << 20;
  void* pinned = nullptr;
  CheckCuda(cudaMallocHost(&pinned, kHostBytes), "cudaMallocHost");
  const Buffer device_side(kHostBytes);
  AnswerCopy(
      "pinned host to device", kHostBytes,
      MedianMs(
          stream, [&] { cudaMemcpyAsync(device_side.as(), pinned, kHostBytes, cudaMemcpyHostToDevice, stream); }, 3));
  AnswerCopy(
      "device to pinned host", kHostBytes,
      MedianMs(
          stream, [&] { cudaMemcpyAsync(pinned, device_side.as(), kHostBytes, cudaMemcpyDeviceToHost, stream); }, 3));
  CheckCuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  cudaFreeHost(pinned);
  cudaStreamDestroy(stream);
}

}  // namespace shoestring::probe
