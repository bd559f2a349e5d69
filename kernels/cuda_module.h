// Opens libshoestring_cuda.so, which holds everything that needs CUDA, and makes its backend; or says what is missing.
//
// The program links no CUDA library: a machine without a GPU neither needs them nor pays for them. The module takes
// symbols of ours from the executable, which must have been built from the same interfaces: both carry a number made of
// their text, and a module whose number differs is refused.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace shoestring {

struct CudaBackendOptions {
  int device = 0;       // ordinal among the visible ones
  bool shared = false;  // counted round and round: ranks beyond the last device share those that others have
  // Scratch of a stream for products and sums, taken when the stream is made; -1: as much as the backend likes best.
  int64_t workspace_bytes = -1;
};

// Where things lie; launch/ finds out.
struct CudaPlaces {
  std::string module;  // file; empty: libshoestring_cuda.so beside the executable or in ../lib from there
  // Folders that are searched for CUDA's libraries before the system's own places: a toolkit's, Python packages'.
  std::vector<std::string> directories;
};

// A library that the module asks for.
struct CudaLibrary {
  std::string name;
  std::string path;     // where it was found; empty: nowhere
  bool needed = false;  // false: only cuDNN may ask for it, and does without
};

// What the driver shows of this machine.
struct CudaMachine {
  struct Device {
    std::string name;
    int64_t memory_bytes = 0;
    int major = 0, minor = 0;  // compute capability
  };
  int driver = 0;  // the newest CUDA that it serves: 13000 is 13.0; 0: there is no driver
  std::vector<Device> devices;
};

class CudaModule {
 public:
  // Once opened it stays so for the life of the process. Errors are one line that says what is missing and how to mend
  // it: NOT_FOUND a file or library; FAILED_PRECONDITION a module that this program cannot use.
  static absl::StatusOr<CudaModule> Open(const CudaPlaces& places);

  // UNAVAILABLE: no driver, no such device, or one that device code was not made for. RESOURCE_EXHAUSTED: its memory.
  absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const CudaBackendOptions& options) const;

  // The libraries as Open looks for them, in the order of their needs; the first that is missing is why it fails.
  static std::vector<CudaLibrary> FindLibraries(const CudaPlaces& places);

  // Nothing is wrong with a machine that has none of it.
  CudaMachine Describe() const;

  // An exported function, or null.
  void* Find(const char* symbol) const;
  const std::string& path() const { return path_; }

 private:
  CudaModule(void* handle, std::string path) : handle_(handle), path_(std::move(path)) {}
  void* handle_;
  std::string path_;
};

// --- between program and module -------------------------------------------------------------------------------------

// Why a factory gave null.
struct CudaFailure {
  enum class Kind { kUnavailable, kExhausted };
  Kind kind = Kind::kUnavailable;
  std::string message;
};

// The two factories, what says what there is, and the number of the interfaces; extern "C", so that their names are
// plain.
using CudaAbiFunction = const char*();
using CudaMakeBackendFunction = Backend*(const CudaBackendOptions& options, CudaFailure& failure);
using CudaDescribeFunction = void(CudaMachine& machine);
constexpr char kCudaAbiSymbol[] = "shoestring_cuda_abi";
constexpr char kCudaMakeBackendSymbol[] = "shoestring_cuda_make_backend";
constexpr char kCudaDescribeSymbol[] = "shoestring_cuda_describe";
constexpr char kCudaMakeNcclSymbol[] = "shoestring_cuda_make_nccl";  // parallel/nccl/library.h

}  // namespace shoestring
