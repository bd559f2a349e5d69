// The table of NCCL and CUDA calls, for the module: the one file that includes nccl.h.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <string>

#include "kernels/cuda/cuda_context.h"
#include "kernels/cuda_module.h"
#include "parallel/nccl/library.h"

namespace shoestring {
namespace {

static_assert(static_cast<int>(NcclResult::kSuccess) == ncclSuccess);
static_assert(static_cast<int>(NcclResult::kCudaError) == ncclUnhandledCudaError);
static_assert(static_cast<int>(NcclResult::kSystemError) == ncclSystemError);
static_assert(static_cast<int>(NcclResult::kInternalError) == ncclInternalError);
static_assert(static_cast<int>(NcclResult::kInvalidArgument) == ncclInvalidArgument);
static_assert(static_cast<int>(NcclResult::kInvalidUsage) == ncclInvalidUsage);
static_assert(static_cast<int>(NcclResult::kRemoteError) == ncclRemoteError);
static_assert(static_cast<int>(NcclResult::kInProgress) == ncclInProgress);
static_assert(static_cast<int>(NcclType::kU8) == ncclUint8);
static_assert(static_cast<int>(NcclType::kI64) == ncclInt64);
static_assert(static_cast<int>(NcclType::kF32) == ncclFloat32);
static_assert(static_cast<int>(NcclType::kF64) == ncclFloat64);
static_assert(sizeof(NcclId) == sizeof(ncclUniqueId));

// Oldest NCCL that crashes neither when communicators are made again in one process (2.28.3 to 2.28.8 do) nor lacks
// fields of the config that we set.
constexpr int kOldestVersion = NCCL_VERSION(2, 28, 9);

NcclResult Result(ncclResult_t result) { return static_cast<NcclResult>(result); }
ncclComm_t Nccl(NcclLibrary::Comm comm) { return static_cast<ncclComm_t>(comm); }
cudaStream_t Cuda(NcclLibrary::Queue queue) { return static_cast<cudaStream_t>(queue); }
cudaEvent_t CudaEvent(NcclLibrary::Event event) { return static_cast<cudaEvent_t>(event); }
ncclDataType_t Type(NcclType type) { return static_cast<ncclDataType_t>(type); }

class CudaNccl final : public NcclLibrary {
 public:
  CudaNccl(int device, int version) : device_(device), version_(version) {}

  int version() const override { return version_; }

  NcclResult MakeId(NcclId* id) override {
    ncclUniqueId made;
    const ncclResult_t result = ncclGetUniqueId(&made);
    std::copy_n(made.internal, id->bytes.size(), id->bytes.begin());
    return Result(result);
  }

  NcclResult Init(Comm* comm, int size, const NcclId& id, int index, const NcclCommConfig& wanted) override {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.commName = wanted.name.c_str();  // NCCL copies it
    if (wanted.max_ctas > 0) {
      config.minCTAs = 1;
      config.maxCTAs = wanted.max_ctas;
    }
    ncclUniqueId told;
    std::copy_n(id.bytes.begin(), id.bytes.size(), told.internal);
    ncclComm_t made = nullptr;
    EnterThread();
    const ncclResult_t result = ncclCommInitRankConfig(&made, size, told, index, &config);
    *comm = made;
    return Result(result);
  }

  NcclResult AsyncError(Comm comm, NcclResult* state) override {
    ncclResult_t reported = ncclSuccess;
    const ncclResult_t result = ncclCommGetAsyncError(Nccl(comm), &reported);
    *state = Result(reported);
    return Result(result);
  }
  NcclResult Finalize(Comm comm) override { return Result(ncclCommFinalize(Nccl(comm))); }
  NcclResult Destroy(Comm comm) override { return Result(ncclCommDestroy(Nccl(comm))); }
  NcclResult Abort(Comm comm) override { return Result(ncclCommAbort(Nccl(comm))); }

  std::string LastError(Comm comm) override {
    const char* text = comm == nullptr ? nullptr : ncclGetLastError(Nccl(comm));
    std::string message = text == nullptr ? "" : text;
    if (const auto error = static_cast<cudaError_t>(cuda_error_.load()); error != cudaSuccess) {
      if (!message.empty()) message += "; ";
      message += std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
    }
    return message;
  }

  NcclResult GroupStart() override { return Result(ncclGroupStart()); }
  NcclResult GroupEnd() override { return Result(ncclGroupEnd()); }
  NcclResult Send(const void* from, size_t bytes, int peer, Comm comm, Queue queue) override {
    return Result(ncclSend(from, bytes, ncclUint8, peer, Nccl(comm), Cuda(queue)));
  }
  NcclResult Receive(void* to, size_t bytes, int peer, Comm comm, Queue queue) override {
    return Result(ncclRecv(to, bytes, ncclUint8, peer, Nccl(comm), Cuda(queue)));
  }
  NcclResult AllReduce(void* x, size_t count, NcclType type, Comm comm, Queue queue) override {
    return Result(ncclAllReduce(x, x, count, Type(type), ncclSum, Nccl(comm), Cuda(queue)));
  }
  NcclResult ReduceScatter(const void* from, void* to, size_t to_count, NcclType type, Comm comm,
                           Queue queue) override {
    return Result(ncclReduceScatter(from, to, to_count, Type(type), ncclSum, Nccl(comm), Cuda(queue)));
  }
  NcclResult AllGather(const void* from, void* to, size_t from_bytes, Comm comm, Queue queue) override {
    return Result(ncclAllGather(from, to, from_bytes, ncclUint8, Nccl(comm), Cuda(queue)));
  }
  NcclResult Broadcast(const void* from, void* to, size_t bytes, int root, Comm comm, Queue queue) override {
    return Result(ncclBroadcast(from, to, bytes, ncclUint8, root, Nccl(comm), Cuda(queue)));
  }

  void EnterThread() override { Note(cudaSetDevice(device_)); }
  Queue QueueOf(Stream& stream) override { return CudaStreamOf(stream).get(); }

  // Of high priority, so that its few blocks start while a kernel of compute fills the device.
  NcclResult MakeQueue(Queue* queue) override {
    int least = 0, greatest = 0;
    EnterThread();
    if (const cudaError_t error = cudaDeviceGetStreamPriorityRange(&least, &greatest); error != cudaSuccess) {
      return Note(error);
    }
    cudaStream_t stream = nullptr;
    const NcclResult result = Note(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
    *queue = stream;
    return result;
  }
  void DestroyQueue(Queue queue) override { Note(cudaStreamDestroy(Cuda(queue))); }

  NcclResult MakeEvent(Event* event) override {
    cudaEvent_t made = nullptr;
    EnterThread();
    const NcclResult result = Note(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
    *event = made;
    return result;
  }
  void DestroyEvent(Event event) override { Note(cudaEventDestroy(CudaEvent(event))); }
  NcclResult Record(Event event, Queue queue) override { return Note(cudaEventRecord(CudaEvent(event), Cuda(queue))); }
  NcclResult WaitEvent(Queue queue, Event event) override {
    return Note(cudaStreamWaitEvent(Cuda(queue), CudaEvent(event), 0));
  }
  NcclResult EventDone(Event event, bool* done) override {
    const cudaError_t error = cudaEventQuery(CudaEvent(event));
    *done = error == cudaSuccess;
    if (error != cudaErrorNotReady) return Note(error);
    (void)cudaGetLastError();  // no error, yet kept as one
    return NcclResult::kSuccess;
  }

  NcclResult Copy(const NcclCopy& copy, Queue queue) override {
    return Note(cudaMemcpy2DAsync(copy.to, copy.to_pitch, copy.from, copy.from_pitch, copy.row_bytes, copy.rows,
                                  cudaMemcpyDeviceToDevice, Cuda(queue)));
  }
  NcclResult Allocate(size_t bytes, std::byte** memory) override {
    void* made = nullptr;
    const cudaError_t error = cudaMalloc(&made, bytes);
    if (error == cudaErrorMemoryAllocation) (void)cudaGetLastError();  // said by the result; no later call's error
    *memory = static_cast<std::byte*>(made);
    return Note(error);
  }
  void Free(std::byte* memory) override { Note(cudaFree(memory)); }

 private:
  NcclResult Note(cudaError_t error) {
    if (error == cudaSuccess) return NcclResult::kSuccess;
    cuda_error_ = error;
    return NcclResult::kCudaError;
  }

  const int device_;
  const int version_;
  std::atomic<int> cuda_error_{cudaSuccess};  // the last
};

std::string VersionText(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version % 10000 / 100) + "." +
         std::to_string(version % 100);
}

}  // namespace
}  // namespace shoestring

extern "C" shoestring::NcclLibrary* shoestring_cuda_make_nccl(int device, shoestring::CudaFailure& failure) {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess || version < shoestring::kOldestVersion) {
    failure.message = "NCCL: the library found is " + shoestring::VersionText(version) + ", and " +
                      shoestring::VersionText(shoestring::kOldestVersion) +
                      " or later is needed; put a newer libnccl.so.2 in front";
    return nullptr;
  }
  return new shoestring::CudaNccl(device, version);
}
