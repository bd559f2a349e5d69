// A file system that fails where a test says so: errors, short writes, kill -9 and power loss at any operation.
//
// A test runs the operation under test once without faults to learn mutation_count(), then again for each n below it
// with a fault injected at n, and looks at what is left on the wrapped file system.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/file_system.h"

namespace shoestring {

enum class FileOperation {
  // Mutations, which InjectAt counts.
  kCreate,
  kOpenForAppend,
  kAppend,
  kSync,
  kClose,
  kRename,
  kRemove,
  kSyncDirectory,
  kCreateDirectories,
  kTruncate,
  // Reads, which FailReadAt counts.
  kOpenForRead,
  kRead,
  kMap,
  kStat,
  kList,
};

// "append", "sync", ...: the words of the test's messages.
absl::string_view FileOperationName(FileOperation operation);

struct FileOperationRecord {
  FileOperation operation;
  std::string path;        // of a rename: the old name
  int64_t size_bytes = 0;  // of an append or a read: its bytes; of a truncate: the new size; else 0
  bool failed = false;     // by an injected fault
};

enum class Fault {
  kFail,         // no effect, the given status; later operations work again
  kShortAppend,  // of an append, the first half is written; else as kFail
  kKillBefore,   // no effect; this and every later operation fail, as after kill -9
  kKillDuring,   // of an append, the first half is written; else as kKillBefore
  kKillAfter,    // the effect happens, but the program does not live to see it
};

enum class PowerLoss {
  kDropUnsynced,  // data of files without Sync and names in directories without SyncDirectory are gone
  kKeepNames,     // all names are as written, data without Sync is gone: what a rename before its data leaves
};

class DurableTree;

// Thread-safe. The wrapped file system and this object must outlive the files opened through it.
class FaultFileSystem final : public FileSystem {
 public:
  explicit FaultFileSystem(FileSystem& base);
  ~FaultFileSystem() override;

  // Injects `fault` at the mutation numbered `mutation`, counted from 0 since construction. `status` is what kFail and
  // kShortAppend return, with the operation and path put in front.
  void InjectAt(int64_t mutation, Fault fault, absl::Status status = absl::ResourceExhaustedError("no space left"));
  // The same for reads, which can only fail.
  void FailReadAt(int64_t read, absl::Status status);

  std::vector<FileOperationRecord> operations() const;  // in order, failed ones included
  int64_t mutation_count() const;
  int64_t read_count() const;
  bool dead() const;  // a kill or LosePower has happened

  // From now on keeps in memory what of the tree under `root` (an existing directory, whole files, no links) is
  // durable; all there is now counts as durable.
  absl::Status TrackDurability(const std::string& root);
  // Rewrites the tracked tree, in the wrapped file system, to what a power failure now would leave; then all is dead.
  absl::Status LosePower(PowerLoss loss);

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenForRead(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) override;
  absl::StatusOr<FileInfo> Stat(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override;
  absl::Status CreateDirectories(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::Status Truncate(const std::string& path, int64_t size_bytes) override;

 private:
  class FaultyWritableFile;
  class FaultyReadableFile;
  struct Injection {
    Fault fault;
    absl::Status status;
  };
  // What is to become of one operation: how much of it happens, and what the caller is told if that much went well.
  enum class Extent { kNothing, kHalf, kAll };
  struct Verdict {
    Extent extent;
    absl::Status status;
  };

  // All three need mutex_ to be held.
  Verdict Judge(FileOperation operation, const std::string& path, int64_t size_bytes);
  template <typename Effect>
  absl::Status Mutate(FileOperation operation, const std::string& path, int64_t size_bytes, Effect effect);
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWriting(FileOperation operation, const std::string& path);

  absl::Status AdmitRead(FileOperation operation, const std::string& path, int64_t size_bytes);  // takes mutex_

  FileSystem& base_;
  mutable std::mutex mutex_;
  std::map<int64_t, Injection> mutation_faults_;
  std::map<int64_t, absl::Status> read_faults_;
  std::vector<FileOperationRecord> operations_;
  int64_t mutation_count_ = 0;
  int64_t read_count_ = 0;
  bool dead_ = false;
  std::unique_ptr<DurableTree> durable_;  // null until TrackDurability
};

}  // namespace shoestring
