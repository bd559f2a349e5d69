// The real file system without its waits for the disk: for tests that save thousands of times and lose no power.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/file_system.h"
#include "base/status_macros.h"

namespace shoestring {

class FastFileSystemImpl final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    return WithoutSync(PosixFileSystem().Create(path));
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override {
    return WithoutSync(PosixFileSystem().OpenForAppend(path));
  }
  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenForRead(const std::string& path) override {
    return PosixFileSystem().OpenForRead(path);
  }
  absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) override {
    return PosixFileSystem().Map(path);
  }
  absl::StatusOr<FileInfo> Stat(const std::string& path) override { return PosixFileSystem().Stat(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override {
    return PosixFileSystem().List(directory);
  }
  absl::Status CreateDirectories(const std::string& path) override { return PosixFileSystem().CreateDirectories(path); }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return PosixFileSystem().Rename(from, to);
  }
  absl::Status Remove(const std::string& path) override { return PosixFileSystem().Remove(path); }
  absl::Status SyncDirectory(const std::string& path) override { return PosixFileSystem().Stat(path).status(); }
  absl::Status Truncate(const std::string& path, int64_t size_bytes) override {
    return PosixFileSystem().Truncate(path, size_bytes);
  }

 private:
  class UnsyncedFile final : public WritableFile {
   public:
    explicit UnsyncedFile(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
    absl::Status Append(absl::string_view data) override { return file_->Append(data); }
    absl::Status Sync() override { return absl::OkStatus(); }
    absl::Status Close() override { return file_->Close(); }

   private:
    std::unique_ptr<WritableFile> file_;
  };

  static absl::StatusOr<std::unique_ptr<WritableFile>> WithoutSync(absl::StatusOr<std::unique_ptr<WritableFile>> file) {
    RETURN_IF_ERROR(file.status());
    return std::make_unique<UnsyncedFile>(*std::move(file));
  }
};

inline FileSystem& FastFileSystem() {
  static FastFileSystemImpl* const fs = new FastFileSystemImpl;
  return *fs;
}

}  // namespace shoestring
