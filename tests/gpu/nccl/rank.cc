// Opening a rank's device, and agreeing on a communicator through a file.
#include "tests/gpu/nccl/rank.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "kernels/cuda_module.h"
#include "parallel/nccl/nccl_communicator.h"
#include "parallel/nccl/open_library.h"

namespace shoestring::gpu {

absl::StatusOr<std::unique_ptr<RankContext>> RankContext::Create(const RankOptions& options) {
  std::unique_ptr<RankContext> context(new RankContext(options));
  ASSIGN_OR_RETURN(const CudaModule module, CudaModule::Open({}));
  CudaBackendOptions backend_options;
  backend_options.device = options.device;
  ASSIGN_OR_RETURN(context->backend_, module.MakeBackend(backend_options));
  context->stream_ = context->backend_->MakeStream();
  ASSIGN_OR_RETURN(context->library_, OpenNcclLibrary(module, options.device));
  return context;
}

// Rank 0 makes the id and leaves it in a file of the generation's own; the others wait for it.
absl::StatusOr<NcclId> RankContext::ShareId(int generation) {
  constexpr double kWait_s = 60;
  FileSystem& files = PosixFileSystem();
  const std::string path = absl::StrCat(options_.id_file, ".", generation);
  NcclId id;
  if (options_.rank == 0) {
    if (library_->MakeId(&id) != NcclResult::kSuccess) return absl::InternalError("NCCL makes no id");
    const std::string temporary = absl::StrCat(path, ".tmp");
    ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, files.Create(temporary));
    RETURN_IF_ERROR(file->Append(std::string(id.bytes.data(), id.bytes.size())));
    RETURN_IF_ERROR(file->Close());
    RETURN_IF_ERROR(files.Rename(temporary, path));
    return id;
  }
  const double until_s = RealClock().MonotonicSeconds() + kWait_s;
  while (!Exists(files, path)) {
    if (RealClock().MonotonicSeconds() > until_s) {
      return absl::DeadlineExceededError(absl::StrCat(path, ": rank 0 left no id within ", kWait_s, " s"));
    }
    RealClock().SleepNanos(2'000'000);
  }
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(files, path));
  if (bytes.size() != id.bytes.size()) return absl::DataLossError(absl::StrCat(path, ": is no id of NCCL"));
  std::memcpy(id.bytes.data(), bytes.data(), bytes.size());
  return id;
}

absl::StatusOr<std::unique_ptr<Communicator>> RankContext::Join(int ranks, int generation) {
  NcclOptions options;
  ASSIGN_OR_RETURN(options.id, ShareId(generation));
  options.who.group = absl::StrCat("all, generation ", generation);
  options.who.ranks.resize(ranks);
  std::iota(options.who.ranks.begin(), options.who.ranks.end(), 0);
  options.who.index = options_.rank;
  options.max_ctas = options_.max_ctas;
  options.init_timeout_s = 60;
  options.finalize_timeout_s = 10;
  options.abort_timeout_s = 20;
  return MakeNcclCommunicator(*library_, std::move(options));
}

DeviceMatrix::DeviceMatrix(RankContext& context, int64_t rows, int64_t cols, int64_t stride) : context_(context) {
  if (stride == 0) stride = cols;
  std::byte* memory = nullptr;
  const size_t bytes = std::max<int64_t>(rows * stride, 1) * sizeof(float);
  CHECK(context.library().Allocate(bytes, &memory) == NcclResult::kSuccess);
  view_ = View(memory, DType::kF32, rows, cols, stride);
}

DeviceMatrix::~DeviceMatrix() { context_.library().Free(view_.data); }

void DeviceMatrix::Write(const std::vector<float>& values) {
  CHECK_EQ(static_cast<int64_t>(values.size()), elements());
  if (values.empty()) return;
  context_.backend().CopyFromHost(context_.stream(), values.data(), whole());
  context_.Synchronize();
}

std::vector<float> DeviceMatrix::Read() {
  std::vector<float> values(elements());
  if (values.empty()) return values;
  context_.backend().CopyToHost(context_.stream(), whole(), values.data());
  context_.Synchronize();
  return values;
}

}  // namespace shoestring::gpu
