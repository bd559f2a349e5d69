// A file system of a few files in memory, read-only: what a fuzzed reader is let loose on.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"

namespace shoestring {

class MemoryFiles final : public FileSystem {
 public:
  explicit MemoryFiles(std::map<std::string, std::string> files) : files_(std::move(files)) {}

  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenForRead(const std::string& path) override {
    const std::string* contents = Find(path);
    if (contents == nullptr) return absl::NotFoundError(path);
    return std::make_unique<Readable>(*contents);
  }
  absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) override {
    const std::string* contents = Find(path);
    if (contents == nullptr) return absl::NotFoundError(path);
    return std::make_unique<Mapped>(*contents);
  }
  absl::StatusOr<FileInfo> Stat(const std::string& path) override {
    const std::string* contents = Find(path);
    if (contents == nullptr) return absl::NotFoundError(path);
    return FileInfo{false, static_cast<int64_t>(contents->size())};
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string&) override {
    std::vector<std::string> names;
    for (const auto& [path, contents] : files_) names.push_back(BaseName(path));
    return names;
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override { return Refuse(path); }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override { return Refuse(path); }
  absl::Status CreateDirectories(const std::string& path) override { return Refuse(path); }
  absl::Status Rename(const std::string& from, const std::string&) override { return Refuse(from); }
  absl::Status Remove(const std::string& path) override { return Refuse(path); }
  absl::Status SyncDirectory(const std::string& path) override { return Refuse(path); }
  absl::Status Truncate(const std::string& path, int64_t) override { return Refuse(path); }

 private:
  class Readable final : public ReadableFile {
   public:
    // An own copy of exactly these bytes, so that the sanitizer sees a step beyond their end.
    explicit Readable(const std::string& contents) : bytes_(contents.begin(), contents.end()) {}
    absl::Status ReadAt(int64_t offset, int64_t size, char* out) const override {
      if (offset < 0 || size < 0 || offset > size_bytes() || size > size_bytes() - offset) {
        return absl::OutOfRangeError("beyond the end");
      }
      if (size > 0) std::memcpy(out, bytes_.data() + offset, size);
      return absl::OkStatus();
    }
    int64_t size_bytes() const override { return static_cast<int64_t>(bytes_.size()); }

   private:
    const std::vector<char> bytes_;
  };
  class Mapped final : public MappedFile {
   public:
    explicit Mapped(const std::string& contents) : bytes_(contents.begin(), contents.end()) {}
    absl::string_view contents() const override { return {bytes_.data(), bytes_.size()}; }

   private:
    const std::vector<char> bytes_;
  };

  static absl::Status Refuse(const std::string& path) { return absl::PermissionDeniedError(path); }
  const std::string* Find(const std::string& path) const {
    const auto it = files_.find(path);
    return it == files_.end() ? nullptr : &it->second;
  }

  const std::map<std::string, std::string> files_;
};

}  // namespace shoestring
