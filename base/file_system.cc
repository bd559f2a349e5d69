// The POSIX file system, and the helpers that work over any file system.
#include "base/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

absl::StatusCode CodeOfErrno(int error) {
  switch (error) {
    case ENOENT: return absl::StatusCode::kNotFound;
    case EEXIST: return absl::StatusCode::kAlreadyExists;
    case EACCES:
    case EPERM:
    case EROFS: return absl::StatusCode::kPermissionDenied;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return absl::StatusCode::kResourceExhausted;
    default: return absl::StatusCode::kUnavailable;
  }
}

template <typename Call>
auto RetryInterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

absl::StatusOr<int> OpenDescriptor(const std::string& path, int flags) {
  const int descriptor = RetryInterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); });
  if (descriptor < 0) return ErrnoStatus("open", path, errno);
  return descriptor;
}

// Owns an open file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const { return value_; }
  bool is_open() const { return value_ >= 0; }
  // Returns 0 or an errno. Linux frees the descriptor even on EINTR, so that one is no failure and is never retried.
  int Close() {
    const int result = ::close(std::exchange(value_, -1));
    return result == 0 || errno == EINTR ? 0 : errno;
  }

 private:
  int value_;
};

// The first failure sticks: after a failed fsync the kernel forgets the lost pages and the next fsync would say OK.
class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  absl::Status Append(absl::string_view data) override {
    RETURN_IF_ERROR(Usable("write"));
    while (!data.empty()) {
      const ssize_t written = RetryInterrupted([&] { return ::write(descriptor_.get(), data.data(), data.size()); });
      if (written < 0) return Fail("write", errno);
      data.remove_prefix(static_cast<size_t>(written));
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    RETURN_IF_ERROR(Usable("sync"));
    if (RetryInterrupted([&] { return ::fsync(descriptor_.get()); }) != 0) return Fail("sync", errno);
    return absl::OkStatus();
  }

  absl::Status Close() override {
    if (!descriptor_.is_open()) return status_;
    if (const int error = descriptor_.Close(); error != 0 && status_.ok()) return Fail("close", error);
    return status_;
  }

 private:
  absl::Status Usable(absl::string_view verb) const {
    if (!status_.ok()) return status_;
    return descriptor_.is_open() ? absl::OkStatus() : ErrnoStatus(verb, path_, EBADF);
  }
  absl::Status Fail(absl::string_view verb, int error) { return status_ = ErrnoStatus(verb, path_, error); }

  const std::string path_;
  Descriptor descriptor_;
  absl::Status status_;
};

class PosixReadableFile final : public ReadableFile {
 public:
  PosixReadableFile(std::string path, Descriptor descriptor, int64_t size_bytes)
      : path_(std::move(path)), descriptor_(std::move(descriptor)), size_bytes_(size_bytes) {}

  absl::Status ReadAt(int64_t offset, int64_t size, char* out) const override {
    if (offset < 0 || size < 0) return TooShort(offset, size);
    for (int64_t done = 0; done < size;) {
      const ssize_t count = RetryInterrupted(
          [&] { return ::pread(descriptor_.get(), out + done, static_cast<size_t>(size - done), offset + done); });
      if (count < 0) return ErrnoStatus("read", path_, errno);
      if (count == 0) return TooShort(offset, size);
      done += count;
    }
    return absl::OkStatus();
  }
  int64_t size_bytes() const override { return size_bytes_; }

 private:
  absl::Status TooShort(int64_t offset, int64_t size) const {
    return absl::OutOfRangeError(absl::StrCat("read ", path_, ": ", size, " bytes at offset ", offset,
                                              " are not there, the file has ", size_bytes_, " bytes"));
  }

  const std::string path_;
  const Descriptor descriptor_;
  const int64_t size_bytes_;
};

class PosixMappedFile final : public MappedFile {
 public:
  PosixMappedFile(void* address, size_t size) : address_(address), size_(size) {}
  ~PosixMappedFile() override {
    if (size_ > 0) ::munmap(address_, size_);
  }
  absl::string_view contents() const override { return {static_cast<const char*>(address_), size_}; }

 private:
  void* const address_;
  const size_t size_;
};

struct OpenedFile {
  Descriptor descriptor;
  int64_t size_bytes;
};

absl::StatusOr<OpenedFile> OpenExisting(const std::string& path) {
  // Without O_NONBLOCK the opening of a pipe waits for its writer.
  ASSIGN_OR_RETURN(const int number, OpenDescriptor(path, O_RDONLY | O_NONBLOCK));
  Descriptor descriptor(number);
  struct stat info {};
  if (::fstat(descriptor.get(), &info) != 0) return ErrnoStatus("stat", path, errno);
  if (S_ISDIR(info.st_mode)) return ErrnoStatus("open", path, EISDIR);
  // A pipe has neither a size nor offsets, and would pass for an empty file.
  if (!S_ISREG(info.st_mode)) {
    return absl::UnavailableError(absl::StrCat("open ", path, ": is not a regular file, which it must be"));
  }
  return OpenedFile{std::move(descriptor), info.st_size};
}

class PosixFileSystemImpl final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    return OpenForWriting(path, O_WRONLY | O_CREAT | O_TRUNC);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override {
    return OpenForWriting(path, O_WRONLY | O_CREAT | O_APPEND);
  }

  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenForRead(const std::string& path) override {
    ASSIGN_OR_RETURN(OpenedFile opened, OpenExisting(path));
    return std::make_unique<PosixReadableFile>(path, std::move(opened.descriptor), opened.size_bytes);
  }

  absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) override {
    ASSIGN_OR_RETURN(OpenedFile opened, OpenExisting(path));
    const auto size = static_cast<size_t>(opened.size_bytes);
    if (size == 0) return std::make_unique<PosixMappedFile>(nullptr, 0);  // mmap refuses a length of 0
    void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, opened.descriptor.get(), 0);
    if (address == MAP_FAILED) return ErrnoStatus("map", path, errno);
    return std::make_unique<PosixMappedFile>(address, size);
  }

  absl::StatusOr<FileInfo> Stat(const std::string& path) override {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return ErrnoStatus("stat", path, errno);
    return FileInfo{S_ISDIR(info.st_mode), info.st_size, !S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode)};
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override {
    const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(directory.c_str()), &::closedir);
    if (stream == nullptr) return ErrnoStatus("list", directory, errno);
    std::vector<std::string> names;
    while (true) {
      errno = 0;  // readdir tells its end from its failure by errno alone
      const dirent* const entry = ::readdir(stream.get());
      if (entry == nullptr && errno != 0) return ErrnoStatus("list", directory, errno);
      if (entry == nullptr) break;
      const absl::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::Status CreateDirectories(const std::string& path) override {
    if (const auto info = Stat(path); info.ok()) {
      return info->is_directory ? absl::OkStatus() : ErrnoStatus("mkdir", path, EEXIST);
    }
    if (const std::string parent = DirName(path); parent != path) RETURN_IF_ERROR(CreateDirectories(parent));
    if (::mkdir(path.c_str(), 0777) == 0) return absl::OkStatus();
    const int error = errno;
    // Another process may have been first; that is as good.
    if (const auto info = Stat(path); error == EEXIST && info.ok() && info->is_directory) return absl::OkStatus();
    return ErrnoStatus("mkdir", path, error);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (const auto standing = Stat(to); standing.ok() && standing->is_special) {
      return absl::FailedPreconditionError(
          absl::StrCat("rename ", from, " to ", to, ": a device, pipe or socket stands there; name another file"));
    }
    if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
    return ErrnoStatus("rename", absl::StrCat(from, " to ", to), errno);
  }

  absl::Status Remove(const std::string& path) override {
    if (std::remove(path.c_str()) == 0) return absl::OkStatus();
    return ErrnoStatus("remove", path, errno);
  }

  absl::Status SyncDirectory(const std::string& path) override {
    ASSIGN_OR_RETURN(const int number, OpenDescriptor(path, O_RDONLY | O_DIRECTORY));
    const Descriptor descriptor(number);
    if (RetryInterrupted([&] { return ::fsync(descriptor.get()); }) == 0) return absl::OkStatus();
    return ErrnoStatus("sync", path, errno);
  }

  absl::Status Truncate(const std::string& path, int64_t size_bytes) override {
    if (RetryInterrupted([&] { return ::truncate(path.c_str(), size_bytes); }) == 0) return absl::OkStatus();
    return ErrnoStatus("truncate", path, errno);
  }

 private:
  static absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(const std::string& path, int flags) {
    ASSIGN_OR_RETURN(const int number, OpenDescriptor(path, flags));
    return std::make_unique<PosixWritableFile>(path, number);
  }
};

}  // namespace

absl::Status ErrnoStatus(absl::string_view verb, absl::string_view path, int error) {
  return absl::Status(CodeOfErrno(error), absl::StrCat(verb, " ", path, ": ", std::generic_category().message(error)));
}

FileSystem& PosixFileSystem() {
  static PosixFileSystemImpl* const fs = new PosixFileSystemImpl;  // never destroyed: other statics may still use it
  return *fs;
}

absl::StatusOr<std::string> ReadFile(FileSystem& fs, const std::string& path, int64_t max_bytes) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, fs.OpenForRead(path));
  if (file->size_bytes() > max_bytes) {
    return absl::DataLossError(absl::StrCat(path, ": has ", file->size_bytes(), " bytes, but must have at most ",
                                            max_bytes, "; check that it is the file you mean"));
  }
  std::string contents(static_cast<size_t>(file->size_bytes()), '\0');
  RETURN_IF_ERROR(file->ReadAt(0, file->size_bytes(), contents.data()));
  return contents;
}

absl::Status WriteFile(FileSystem& fs, const std::string& path, absl::string_view contents) {
  ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, fs.Create(path));
  RETURN_IF_ERROR(file->Append(contents));
  return file->Close();
}

absl::Status WriteSynced(FileSystem& fs, const std::string& path, absl::string_view contents) {
  ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, fs.Create(path));
  RETURN_IF_ERROR(file->Append(contents));
  RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

absl::Status WriteFileDurably(FileSystem& fs, const std::string& path, absl::string_view contents) {
  const std::string temporary = absl::StrCat(path, ".tmp");
  absl::Status status = WriteSynced(fs, temporary, contents);
  if (status.ok()) status = fs.Rename(temporary, path);
  if (!status.ok()) {
    fs.Remove(temporary).IgnoreError();  // the first failure is the one to tell; a leftover is overwritten next time
    return status;
  }
  return fs.SyncDirectory(DirName(path));
}

absl::Status CreateDirectoriesDurably(FileSystem& fs, const std::string& directory) {
  const absl::StatusOr<FileInfo> info = fs.Stat(directory);
  if (info.ok() && info->is_directory) return absl::OkStatus();
  if (!info.ok() && !absl::IsNotFound(info.status())) return info.status();
  const std::string parent = DirName(directory);
  if (parent != directory) RETURN_IF_ERROR(CreateDirectoriesDurably(fs, parent));
  RETURN_IF_ERROR(fs.CreateDirectories(directory));
  return fs.SyncDirectory(parent);
}

bool Exists(FileSystem& fs, const std::string& path) { return fs.Stat(path).ok(); }

absl::Status RemoveRecursively(FileSystem& fs, const std::string& path) {
  // Removing comes first, so that a symbolic link to a directory is removed and never followed.
  const absl::Status removed = fs.Remove(path);
  if (removed.ok() || absl::IsNotFound(removed)) return absl::OkStatus();
  const absl::StatusOr<FileInfo> info = fs.Stat(path);
  if (!info.ok() || !info->is_directory) return removed;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(path));
  for (const std::string& name : names) RETURN_IF_ERROR(RemoveRecursively(fs, JoinPath(path, name)));
  return fs.Remove(path);
}

std::string JoinPath(absl::string_view a, absl::string_view b) {
  if (a.empty()) return std::string(b);
  if (b.empty()) return std::string(a);
  while (!a.empty() && a.back() == '/') a.remove_suffix(1);
  while (!b.empty() && b.front() == '/') b.remove_prefix(1);
  return absl::StrCat(a, "/", b);
}

absl::string_view WithoutTrailingSlashes(absl::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  return path;
}

std::string CanonicalPath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::absolute(path, error);
  const std::filesystem::path canonical = std::filesystem::weakly_canonical(whole, error);
  return error ? path : std::string(WithoutTrailingSlashes(canonical.string()));
}

std::string DirName(absl::string_view path) {
  path = WithoutTrailingSlashes(path);
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) return ".";
  return std::string(WithoutTrailingSlashes(path.substr(0, std::max<size_t>(slash, 1))));
}

std::string BaseName(absl::string_view path) {
  path = WithoutTrailingSlashes(path);
  if (path == "/") return "/";
  const size_t slash = path.rfind('/');
  return std::string(slash == absl::string_view::npos ? path : path.substr(slash + 1));
}

}  // namespace shoestring
