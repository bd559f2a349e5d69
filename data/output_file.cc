// Buffered, checksummed, durable output.
#include "data/output_file.h"

#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

std::string TemporaryName(const std::string& path) { return path + ".tmp"; }

}  // namespace

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(FileSystem& fs, const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs.Create(TemporaryName(path)));
  return std::unique_ptr<OutputFile>(new OutputFile(fs, path, std::move(file)));
}

OutputFile::OutputFile(FileSystem& fs, std::string path, std::unique_ptr<WritableFile> file)
    : fs_(fs), path_(std::move(path)), file_(std::move(file)) {}

OutputFile::~OutputFile() {
  if (committed_) return;
  file_.reset();
  // Best effort: the error that brought us here is the one to report, and a left-over is overwritten next time.
  fs_.Remove(TemporaryName(path_)).IgnoreError();
}

absl::Status OutputFile::Append(absl::string_view bytes) {
  CHECK(file_ != nullptr);
  buffer_.append(bytes.data(), bytes.size());
  size_bytes_ += static_cast<int64_t>(bytes.size());
  return buffer_.size() >= kBufferBytes ? Flush() : absl::OkStatus();
}

absl::Status OutputFile::Flush() {
  if (buffer_.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(file_->Append(buffer_));
  checksums_.Update(buffer_);
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status OutputFile::Seal() {
  if (file_ == nullptr) return absl::OkStatus();
  RETURN_IF_ERROR(Flush());
  RETURN_IF_ERROR(file_->Sync());
  RETURN_IF_ERROR(file_->Close());
  file_.reset();
  return absl::OkStatus();
}

absl::Status OutputFile::Commit() {
  CHECK(!committed_);
  RETURN_IF_ERROR(Seal());
  RETURN_IF_ERROR(fs_.Rename(TemporaryName(path_), path_));
  committed_ = true;
  return fs_.SyncDirectory(DirName(path_));
}

absl::StatusOr<std::unique_ptr<FileLock>> LockOutput(FileSystem& fs, const std::string& prefix) {
  RETURN_IF_ERROR(CreateDirectoriesDurably(fs, DirName(prefix)));
  return FileLock::Take(prefix + ".lock", prefix, "wait for it to end, or write to another prefix");
}

}  // namespace shoestring
