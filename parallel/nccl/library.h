// What the NCCL communicator asks of NCCL and CUDA, as a table that libshoestring_cuda.so fills and tests can fake.
//
// The communicator itself (nccl_communicator.h) is ordinary host code and knows neither nccl.h nor cuda_runtime.h: so
// its deadlines, its abort and its plans of transfers are tested on any machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda_module.h"

namespace shoestring {

// ncclResult_t, same numbers.
enum class NcclResult {
  kSuccess = 0,
  kCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};

// ncclDataType_t of what we send: bytes where values only move, a number type where they are added. Same numbers.
enum class NcclType { kU8 = 1, kI64 = 4, kF32 = 7, kF64 = 8 };

// Rows that lie `pitch` bytes apart.
struct NcclCopy {
  const std::byte* from = nullptr;
  size_t from_pitch = 0;
  std::byte* to = nullptr;
  size_t to_pitch = 0;
  size_t row_bytes = 0;
  size_t rows = 0;
  friend bool operator==(const NcclCopy&, const NcclCopy&) = default;
};

// ncclUniqueId: made by one member, told to all members of a new communicator by whoever brings ranks together. Good
// for one communicator only.
struct NcclId {
  std::array<char, 128> bytes{};
};

struct NcclCommConfig {
  std::string name;  // in NCCL's own log
  int max_ctas = 0;  // most thread blocks a collective occupies; 0: NCCL decides
};

// One member's device, in one process; made by the module, so it speaks in plain types only. Handles are NCCL's and
// CUDA's own pointers. Calls on one communicator come from one thread at a time; EventDone may come from another at any
// time.
class NcclLibrary {
 public:
  using Comm = void*;   // ncclComm_t
  using Queue = void*;  // cudaStream_t
  using Event = void*;  // cudaEvent_t without timing

  virtual ~NcclLibrary() = default;
  virtual int version() const = 0;  // NCCL_VERSION_CODE of the library that was loaded: 22809 is 2.28.9

  // --- communicators: non-blocking, so every result may be kInProgress, and then AsyncError says how it ends ---------
  virtual NcclResult MakeId(NcclId* id) = 0;
  virtual NcclResult Init(Comm* comm, int size, const NcclId& id, int index, const NcclCommConfig& config) = 0;
  virtual NcclResult AsyncError(Comm comm, NcclResult* state) = 0;
  virtual NcclResult Finalize(Comm comm) = 0;
  virtual NcclResult Destroy(Comm comm) = 0;
  virtual NcclResult Abort(Comm comm) = 0;  // may take long, or hang where a driver or network does
  // What NCCL says of the last failure, and what CUDA said of a call below that gave kCudaError; may be empty.
  virtual std::string LastError(Comm comm) = 0;

  // --- verbs; between GroupStart and GroupEnd, counts in elements of the type ---------------------------------------
  virtual NcclResult GroupStart() = 0;
  virtual NcclResult GroupEnd() = 0;
  virtual NcclResult Send(const void* from, size_t bytes, int peer, Comm comm, Queue queue) = 0;
  virtual NcclResult Receive(void* to, size_t bytes, int peer, Comm comm, Queue queue) = 0;
  virtual NcclResult AllReduce(void* x, size_t count, NcclType type, Comm comm, Queue queue) = 0;
  virtual NcclResult ReduceScatter(const void* from, void* to, size_t to_count, NcclType type, Comm comm,
                                   Queue queue) = 0;
  virtual NcclResult AllGather(const void* from, void* to, size_t from_bytes, Comm comm, Queue queue) = 0;
  virtual NcclResult Broadcast(const void* from, void* to, size_t bytes, int root, Comm comm, Queue queue) = 0;

  // --- streams and events: kSuccess or kCudaError ------------------------------------------------------------------
  virtual void EnterThread() = 0;                  // makes the device current; called first in a thread of our own
  virtual Queue QueueOf(Stream& stream) = 0;       // of a stream of this device's backend
  virtual NcclResult MakeQueue(Queue* queue) = 0;  // of high priority, independent of the default stream
  virtual void DestroyQueue(Queue queue) = 0;
  virtual NcclResult MakeEvent(Event* event) = 0;
  virtual void DestroyEvent(Event event) = 0;
  virtual NcclResult Record(Event event, Queue queue) = 0;     // when `queue` has come this far
  virtual NcclResult WaitEvent(Queue queue, Event event) = 0;  // later work of `queue` begins after the event
  virtual NcclResult EventDone(Event event, bool* done) = 0;
  virtual NcclResult Copy(const NcclCopy& copy, Queue queue) = 0;
  virtual NcclResult Allocate(size_t bytes, std::byte** memory) = 0;  // may wait for the device: not in the hot path
  virtual void Free(std::byte* memory) = 0;
};

// The module's factory: null, and why, if NCCL cannot be used.
using NcclMakeLibraryFunction = NcclLibrary*(int device, CudaFailure& failure);

}  // namespace shoestring
