// One rank of the NCCL checks: its device, its stream, its communicators, and matrices in device memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "parallel/communicator.h"
#include "parallel/nccl/library.h"

namespace shoestring::gpu {

struct RankOptions {
  int rank = 0;
  int ranks = 1;
  int device = 0;
  int max_ctas = 0;
  double timeout_s = 20;  // of every call
  std::string id_file;    // where rank 0 leaves what the others need to join; seen by all ranks
};

class RankContext {
 public:
  // Opens the CUDA module beside the program, the device and NCCL.
  static absl::StatusOr<std::unique_ptr<RankContext>> Create(const RankOptions& options);

  // Joins the communicator of ranks 0 .. ranks - 1, the `generation`-th of this program.
  absl::StatusOr<std::unique_ptr<Communicator>> Join(int ranks, int generation);

  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }
  NcclLibrary& library() { return *library_; }
  const RankOptions& options() const { return options_; }
  void Synchronize() { backend_->Synchronize(*stream_); }

 private:
  explicit RankContext(const RankOptions& options) : options_(options) {}
  absl::StatusOr<NcclId> ShareId(int generation);

  RankOptions options_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  NcclLibrary* library_ = nullptr;
};

// A matrix of f32 in device memory, read and written by the host as a whole. Rows are `stride` elements apart.
class DeviceMatrix {
 public:
  DeviceMatrix(RankContext& context, int64_t rows, int64_t cols, int64_t stride = 0);
  ~DeviceMatrix();
  DeviceMatrix(const DeviceMatrix&) = delete;
  DeviceMatrix& operator=(const DeviceMatrix&) = delete;

  View view() const { return view_; }
  // All elements, those between the rows too.
  void Write(const std::vector<float>& values);
  std::vector<float> Read();
  int64_t elements() const { return view_.rows * view_.stride; }

 private:
  View whole() const { return {view_.data, DType::kF32, 1, elements()}; }
  RankContext& context_;
  View view_;
};

}  // namespace shoestring::gpu
