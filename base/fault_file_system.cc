// The bodies of the failing file system, and its model of what survives a power failure.
#include "base/fault_file_system.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

bool IsMutation(FileOperation operation) { return operation < FileOperation::kOpenForRead; }

absl::string_view FirstHalf(absl::string_view data) { return data.substr(0, data.size() / 2); }

}  // namespace

absl::string_view FileOperationName(FileOperation operation) {
  switch (operation) {
    case FileOperation::kCreate: return "create";
    case FileOperation::kOpenForAppend: return "open for append";
    case FileOperation::kAppend: return "append";
    case FileOperation::kSync: return "sync";
    case FileOperation::kClose: return "close";
    case FileOperation::kRename: return "rename";
    case FileOperation::kRemove: return "remove";
    case FileOperation::kSyncDirectory: return "sync directory";
    case FileOperation::kCreateDirectories: return "create directories";
    case FileOperation::kTruncate: return "truncate";
    case FileOperation::kOpenForRead: return "open for read";
    case FileOperation::kRead: return "read";
    case FileOperation::kMap: return "map";
    case FileOperation::kStat: return "stat";
    case FileOperation::kList: return "list";
  }
  return "?";
}

// The tracked tree twice over: as the program sees it (live, contents) and as the disk holds it (durable_*).
// A file keeps its identity through renames, as an inode does.
class DurableTree {
 public:
  struct Node {
    bool is_directory = false;
    std::string contents, durable_contents;
    std::map<std::string, std::shared_ptr<Node>> live, durable_names;
  };
  using NodePtr = std::shared_ptr<Node>;

  explicit DurableTree(std::string root) : root_(std::move(root)) {}

  absl::Status Load(FileSystem& fs) {
    ASSIGN_OR_RETURN(top_, LoadNode(fs, root_));
    return absl::OkStatus();
  }

  // Null when `path` lies outside of the tree or names nothing.
  NodePtr Find(const std::string& path) const {
    const std::filesystem::path relative = std::filesystem::path(path).lexically_relative(root_);
    if (relative.empty() || *relative.begin() == "..") return nullptr;
    NodePtr node = top_;
    for (const auto& part : relative) {
      if (node == nullptr) return nullptr;
      if (part == "." || part.empty()) continue;
      const auto child = node->live.find(part.string());
      node = child == node->live.end() ? nullptr : child->second;
    }
    return node;
  }

  // Null when outside of the tree.
  NodePtr FindOrAdd(const std::string& path, bool is_directory) {
    if (NodePtr node = Find(path)) return node;
    const NodePtr parent = Find(DirName(path));
    if (parent == nullptr) return nullptr;
    auto node = std::make_shared<Node>();
    node->is_directory = is_directory;
    parent->live[BaseName(path)] = node;
    return node;
  }

  void AddDirectories(const std::string& path) {
    if (Find(path) != nullptr || DirName(path) == path) return;
    AddDirectories(DirName(path));
    FindOrAdd(path, true);
  }

  void Remove(const std::string& path) {
    if (const NodePtr parent = Find(DirName(path))) parent->live.erase(BaseName(path));
  }

  void Rename(const std::string& from, const std::string& to) {
    const NodePtr node = Find(from);
    Remove(from);
    const NodePtr parent = Find(DirName(to));
    if (node != nullptr && parent != nullptr) parent->live[BaseName(to)] = node;
  }

  void SyncDirectory(const std::string& path) {
    if (const NodePtr node = Find(path)) node->durable_names = node->live;
  }

  // Writes what survives over what lies under the root.
  absl::Status WriteSurvivors(FileSystem& fs, PowerLoss loss) const {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(root_));
    for (const std::string& name : names) RETURN_IF_ERROR(RemoveRecursively(fs, JoinPath(root_, name)));
    return WriteNode(fs, root_, *top_, loss);
  }

 private:
  static absl::StatusOr<NodePtr> LoadNode(FileSystem& fs, const std::string& path) {
    auto node = std::make_shared<Node>();
    ASSIGN_OR_RETURN(const FileInfo info, fs.Stat(path));
    node->is_directory = info.is_directory;
    if (!info.is_directory) {
      ASSIGN_OR_RETURN(node->contents, ReadFile(fs, path));
      node->durable_contents = node->contents;
      return node;
    }
    ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(path));
    for (const std::string& name : names) {
      ASSIGN_OR_RETURN(node->live[name], LoadNode(fs, JoinPath(path, name)));
    }
    node->durable_names = node->live;
    return node;
  }

  static absl::Status WriteNode(FileSystem& fs, const std::string& path, const Node& node, PowerLoss loss) {
    if (!node.is_directory) return WriteFile(fs, path, node.durable_contents);
    RETURN_IF_ERROR(fs.CreateDirectories(path));
    for (const auto& [name, child] : loss == PowerLoss::kKeepNames ? node.live : node.durable_names) {
      RETURN_IF_ERROR(WriteNode(fs, JoinPath(path, name), *child, loss));
    }
    return absl::OkStatus();
  }

  const std::string root_;
  NodePtr top_;
};

class FaultFileSystem::FaultyWritableFile final : public WritableFile {
 public:
  // `node` is null when the file is not tracked.
  FaultyWritableFile(FaultFileSystem& owner, std::string path, std::unique_ptr<WritableFile> file,
                     DurableTree::NodePtr node)
      : owner_(owner), path_(std::move(path)), file_(std::move(file)), node_(std::move(node)) {}

  absl::Status Append(absl::string_view data) override {
    const std::lock_guard lock(owner_.mutex_);
    const Verdict verdict = owner_.Judge(FileOperation::kAppend, path_, static_cast<int64_t>(data.size()));
    if (verdict.extent == Extent::kNothing) return verdict.status;
    if (verdict.extent == Extent::kHalf) data = FirstHalf(data);
    RETURN_IF_ERROR(file_->Append(data));
    if (node_ != nullptr) node_->contents.append(data.data(), data.size());
    return verdict.status;
  }

  absl::Status Sync() override {
    const std::lock_guard lock(owner_.mutex_);
    return owner_.Mutate(FileOperation::kSync, path_, 0, [this] {
      RETURN_IF_ERROR(file_->Sync());
      if (node_ != nullptr) node_->durable_contents = node_->contents;
      return absl::OkStatus();
    });
  }

  absl::Status Close() override {
    const std::lock_guard lock(owner_.mutex_);
    return owner_.Mutate(FileOperation::kClose, path_, 0, [this] { return file_->Close(); });
  }

 private:
  FaultFileSystem& owner_;
  const std::string path_;
  const std::unique_ptr<WritableFile> file_;
  const DurableTree::NodePtr node_;
};

class FaultFileSystem::FaultyReadableFile final : public ReadableFile {
 public:
  FaultyReadableFile(FaultFileSystem& owner, std::string path, std::unique_ptr<ReadableFile> file)
      : owner_(owner), path_(std::move(path)), file_(std::move(file)) {}

  absl::Status ReadAt(int64_t offset, int64_t size, char* out) const override {
    RETURN_IF_ERROR(owner_.AdmitRead(FileOperation::kRead, path_, size));
    return file_->ReadAt(offset, size, out);
  }
  int64_t size_bytes() const override { return file_->size_bytes(); }

 private:
  FaultFileSystem& owner_;
  const std::string path_;
  const std::unique_ptr<ReadableFile> file_;
};

FaultFileSystem::FaultFileSystem(FileSystem& base) : base_(base) {}
FaultFileSystem::~FaultFileSystem() = default;

void FaultFileSystem::InjectAt(int64_t mutation, Fault fault, absl::Status status) {
  CHECK(!status.ok());
  const std::lock_guard lock(mutex_);
  CHECK_GE(mutation, mutation_count_);
  mutation_faults_.insert_or_assign(mutation, Injection{fault, std::move(status)});
}

void FaultFileSystem::FailReadAt(int64_t read, absl::Status status) {
  CHECK(!status.ok());
  const std::lock_guard lock(mutex_);
  CHECK_GE(read, read_count_);
  read_faults_.insert_or_assign(read, std::move(status));
}

std::vector<FileOperationRecord> FaultFileSystem::operations() const {
  const std::lock_guard lock(mutex_);
  return operations_;
}

int64_t FaultFileSystem::mutation_count() const {
  const std::lock_guard lock(mutex_);
  return mutation_count_;
}

int64_t FaultFileSystem::read_count() const {
  const std::lock_guard lock(mutex_);
  return read_count_;
}

bool FaultFileSystem::dead() const {
  const std::lock_guard lock(mutex_);
  return dead_;
}

absl::Status FaultFileSystem::TrackDurability(const std::string& root) {
  const std::lock_guard lock(mutex_);
  auto tree = std::make_unique<DurableTree>(root);
  RETURN_IF_ERROR(tree->Load(base_));
  durable_ = std::move(tree);
  return absl::OkStatus();
}

absl::Status FaultFileSystem::LosePower(PowerLoss loss) {
  const std::lock_guard lock(mutex_);
  CHECK(durable_ != nullptr);  // TrackDurability comes first
  dead_ = true;
  return durable_->WriteSurvivors(base_, loss);
}

FaultFileSystem::Verdict FaultFileSystem::Judge(FileOperation operation, const std::string& path, int64_t size_bytes) {
  const std::string context = absl::StrCat(FileOperationName(operation), " ", path);
  const absl::Status killed = absl::UnavailableError(absl::StrCat(context, ": killed"));
  FileOperationRecord& record = operations_.emplace_back(FileOperationRecord{operation, path, size_bytes, true});
  absl::Status failure;
  Fault fault = Fault::kFail;
  if (IsMutation(operation)) {
    if (const auto found = mutation_faults_.find(mutation_count_++); found != mutation_faults_.end()) {
      fault = found->second.fault;
      failure = WithContext(found->second.status, context);
    }
  } else if (const auto found = read_faults_.find(read_count_++); found != read_faults_.end()) {
    failure = WithContext(found->second, context);
  }
  if (dead_) return {Extent::kNothing, killed};
  if (failure.ok()) {
    record.failed = false;
    return {Extent::kAll, absl::OkStatus()};
  }
  const Extent partly = operation == FileOperation::kAppend ? Extent::kHalf : Extent::kNothing;
  dead_ = fault == Fault::kKillBefore || fault == Fault::kKillDuring || fault == Fault::kKillAfter;
  switch (fault) {
    case Fault::kFail: return {Extent::kNothing, failure};
    case Fault::kShortAppend: return {partly, failure};
    case Fault::kKillBefore: return {Extent::kNothing, killed};
    case Fault::kKillDuring: return {partly, killed};
    case Fault::kKillAfter: return {Extent::kAll, killed};
  }
  return {Extent::kNothing, failure};
}

template <typename Effect>
absl::Status FaultFileSystem::Mutate(FileOperation operation, const std::string& path, int64_t size_bytes,
                                     Effect effect) {
  const Verdict verdict = Judge(operation, path, size_bytes);
  if (verdict.extent == Extent::kAll) RETURN_IF_ERROR(effect());
  return verdict.status;
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultFileSystem::OpenForWriting(FileOperation operation,
                                                                              const std::string& path) {
  std::unique_ptr<WritableFile> file;
  DurableTree::NodePtr node;
  RETURN_IF_ERROR(Mutate(operation, path, 0, [&]() -> absl::Status {
    const bool truncates = operation == FileOperation::kCreate;
    ASSIGN_OR_RETURN(file, truncates ? base_.Create(path) : base_.OpenForAppend(path));
    if (durable_ != nullptr) node = durable_->FindOrAdd(path, false);
    if (node != nullptr && truncates) node->contents.clear();
    return absl::OkStatus();
  }));
  return std::make_unique<FaultyWritableFile>(*this, path, std::move(file), std::move(node));
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultFileSystem::Create(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return OpenForWriting(FileOperation::kCreate, path);
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultFileSystem::OpenForAppend(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return OpenForWriting(FileOperation::kOpenForAppend, path);
}

absl::Status FaultFileSystem::CreateDirectories(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return Mutate(FileOperation::kCreateDirectories, path, 0, [&] {
    RETURN_IF_ERROR(base_.CreateDirectories(path));
    if (durable_ != nullptr) durable_->AddDirectories(path);
    return absl::OkStatus();
  });
}

absl::Status FaultFileSystem::Rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  return Mutate(FileOperation::kRename, from, 0, [&] {
    RETURN_IF_ERROR(base_.Rename(from, to));
    if (durable_ != nullptr) durable_->Rename(from, to);
    return absl::OkStatus();
  });
}

absl::Status FaultFileSystem::Remove(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return Mutate(FileOperation::kRemove, path, 0, [&] {
    RETURN_IF_ERROR(base_.Remove(path));
    if (durable_ != nullptr) durable_->Remove(path);
    return absl::OkStatus();
  });
}

absl::Status FaultFileSystem::SyncDirectory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return Mutate(FileOperation::kSyncDirectory, path, 0, [&] {
    RETURN_IF_ERROR(base_.SyncDirectory(path));
    if (durable_ != nullptr) durable_->SyncDirectory(path);
    return absl::OkStatus();
  });
}

absl::Status FaultFileSystem::Truncate(const std::string& path, int64_t size_bytes) {
  const std::lock_guard lock(mutex_);
  return Mutate(FileOperation::kTruncate, path, size_bytes, [&] {
    RETURN_IF_ERROR(base_.Truncate(path, size_bytes));
    const DurableTree::NodePtr node = durable_ == nullptr ? nullptr : durable_->Find(path);
    if (node != nullptr) node->contents.resize(static_cast<size_t>(size_bytes));
    return absl::OkStatus();
  });
}

absl::Status FaultFileSystem::AdmitRead(FileOperation operation, const std::string& path, int64_t size_bytes) {
  const std::lock_guard lock(mutex_);
  return Judge(operation, path, size_bytes).status;
}

absl::StatusOr<std::unique_ptr<ReadableFile>> FaultFileSystem::OpenForRead(const std::string& path) {
  RETURN_IF_ERROR(AdmitRead(FileOperation::kOpenForRead, path, 0));
  ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, base_.OpenForRead(path));
  return std::make_unique<FaultyReadableFile>(*this, path, std::move(file));
}

absl::StatusOr<std::unique_ptr<MappedFile>> FaultFileSystem::Map(const std::string& path) {
  RETURN_IF_ERROR(AdmitRead(FileOperation::kMap, path, 0));
  return base_.Map(path);
}

absl::StatusOr<FileInfo> FaultFileSystem::Stat(const std::string& path) {
  RETURN_IF_ERROR(AdmitRead(FileOperation::kStat, path, 0));
  return base_.Stat(path);
}

absl::StatusOr<std::vector<std::string>> FaultFileSystem::List(const std::string& directory) {
  RETURN_IF_ERROR(AdmitRead(FileOperation::kList, directory, 0));
  return base_.List(directory);
}

}  // namespace shoestring
