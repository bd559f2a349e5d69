// Slices found in their files, and tensors put together from them.
#include "trainer/checkpoint/stored_tensors.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

constexpr int64_t kReadBytes = int64_t{4} << 20;

int64_t ElementBytes(const checkpoint::Tensor& tensor) { return SizeOf(*DTypeOfSafetensorsName(tensor.dtype())); }

int64_t BytesOf(const checkpoint::Tensor& tensor) {
  int64_t bytes = ElementBytes(tensor);
  for (const int64_t dimension : tensor.shape()) bytes *= dimension;
  return bytes;
}

// The row of a slice that is row `row` of the tensor (rows: all dimensions but the last); -1 if it has no part of it.
int64_t RowInSlice(const checkpoint::Tensor& tensor, const checkpoint::Slice& slice, int64_t row) {
  int64_t local = 0, rows_below = 1;
  for (int d = tensor.shape_size() - 2; d >= 0; --d) {
    const int64_t coordinate = row % tensor.shape(d) - slice.offset(d);
    if (coordinate < 0 || coordinate >= slice.shape(d)) return -1;
    local += coordinate * rows_below;
    rows_below *= slice.shape(d);
    row /= tensor.shape(d);
  }
  return local;
}

}  // namespace

std::string StoredName(const checkpoint::Tensor& tensor) {
  return StoredName(static_cast<StateKind>(tensor.kind()), tensor.name());
}

absl::StatusOr<std::vector<StoredSlice>> LocateSlices(const OpenedCheckpoint& checkpoint, int file,
                                                      const SafetensorsFile& shard) {
  std::map<std::string, const SafetensorsEntry*> entries;
  for (const SafetensorsEntry& entry : shard.header().entries) entries[entry.name] = &entry;
  std::vector<StoredSlice> located;
  for (int t = 0; t < checkpoint.manifest.tensors_size(); ++t) {
    const checkpoint::Tensor& tensor = checkpoint.manifest.tensors(t);
    for (int s = 0; s < tensor.slices_size(); ++s) {
      const checkpoint::Slice& slice = tensor.slices(s);
      if (slice.file() != file) continue;
      const std::string name = StoredName(tensor);
      const auto found = entries.find(name);
      if (found == entries.end()) return absl::DataLossError(absl::StrCat(shard.path(), ": lacks ", name));
      const SafetensorsEntry& entry = *found->second;
      if (entry.dtype != tensor.dtype() ||
          !std::equal(entry.shape.begin(), entry.shape.end(), slice.shape().begin(), slice.shape().end())) {
        return absl::DataLossError(absl::StrCat(shard.path(), ": ", name, " is ", entry.dtype, " [",
                                                absl::StrJoin(entry.shape, ", "), "], the manifest says ",
                                                tensor.dtype(), " [", absl::StrJoin(slice.shape(), ", "), "]"));
      }
      located.push_back({t, s, entry.offset, entry.offset + entry.size_bytes});
      entries.erase(found);
    }
  }
  if (!entries.empty()) {
    return absl::DataLossError(absl::StrCat(shard.path(), ": holds ", absl::CHexEscape(entries.begin()->first),
                                            ", which the manifest does not list"));
  }
  std::sort(located.begin(), located.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  return located;
}

absl::StatusOr<StoredTensors> StoredTensors::Open(FileSystem& fs, const OpenedCheckpoint& checkpoint) {
  StoredTensors stored(checkpoint);
  stored.slices_.resize(static_cast<size_t>(checkpoint.manifest.tensors_size()));
  for (int file = 0; file < checkpoint.manifest.files_size(); ++file) {
    const std::string path = JoinPath(checkpoint.path, checkpoint.manifest.files(file).name());
    ASSIGN_OR_RETURN(SafetensorsFile shard, SafetensorsFile::Open(fs, path));
    ASSIGN_OR_RETURN(const std::vector<StoredSlice> located, LocateSlices(checkpoint, file, shard));
    for (const StoredSlice& slice : located) stored.slices_[static_cast<size_t>(slice.tensor)].push_back(slice);
    stored.shards_.push_back(std::move(shard));
  }
  return stored;
}

int StoredTensors::Find(StateKind kind, absl::string_view name) const {
  for (int t = 0; t < checkpoint_->manifest.tensors_size(); ++t) {
    const checkpoint::Tensor& tensor = checkpoint_->manifest.tensors(t);
    if (static_cast<StateKind>(tensor.kind()) == kind && tensor.name() == name) return t;
  }
  return -1;
}

absl::Status StoredTensors::Read(int tensor, int64_t begin, int64_t size, char* out) const {
  const checkpoint::Tensor& row = checkpoint_->manifest.tensors(tensor);
  CHECK_GE(begin, 0);
  CHECK_LE(size, BytesOf(row) - begin);
  const std::vector<StoredSlice>& slices = slices_[static_cast<size_t>(tensor)];
  if (slices.size() == 1) {  // covers the tensor: the manifest was checked for it
    return shards_[static_cast<size_t>(row.slices(slices[0].slice).file())].ReadAt(slices[0].begin + begin, size, out);
  }
  const int64_t row_bytes = row.shape(row.shape_size() - 1) * ElementBytes(row);
  while (size > 0) {
    const int64_t column = begin % row_bytes;
    const int64_t count = std::min(size, row_bytes - column);
    RETURN_IF_ERROR(ReadRow(tensor, begin / row_bytes, column, count, out));
    begin += count;
    size -= count;
    out += count;
  }
  return absl::OkStatus();
}

absl::Status StoredTensors::ReadRow(int tensor, int64_t row, int64_t begin, int64_t size, char* out) const {
  const checkpoint::Tensor& whole = checkpoint_->manifest.tensors(tensor);
  const int last = whole.shape_size() - 1;
  for (const StoredSlice& stored : slices_[static_cast<size_t>(tensor)]) {
    const checkpoint::Slice& slice = whole.slices(stored.slice);
    const int64_t local = RowInSlice(whole, slice, row);
    const int64_t left = slice.offset(last) * ElementBytes(whole), width = slice.shape(last) * ElementBytes(whole);
    const int64_t from = std::max(begin, left), to = std::min(begin + size, left + width);
    if (local < 0 || from >= to) continue;
    const int64_t offset = stored.begin + local * width + (from - left);
    RETURN_IF_ERROR(shards_[static_cast<size_t>(slice.file())].ReadAt(offset, to - from, out + (from - begin)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> DigestOfFiles(FileSystem& fs, const OpenedCheckpoint& checkpoint) {
  ASSIGN_OR_RETURN(const StoredTensors stored, StoredTensors::Open(fs, checkpoint));
  StateDigester state;
  std::string buffer;
  for (int t = 0; t < checkpoint.manifest.tensors_size(); ++t) {
    const checkpoint::Tensor& tensor = checkpoint.manifest.tensors(t);
    TensorDigester digester(ElementBytes(tensor));
    for (int64_t begin = 0, size = BytesOf(tensor); begin < size; begin += kReadBytes) {
      buffer.resize(static_cast<size_t>(std::min(kReadBytes, size - begin)));
      RETURN_IF_ERROR(stored.Read(t, begin, static_cast<int64_t>(buffer.size()), buffer.data()));
      digester.Update(buffer);
    }
    state.AddTensor(static_cast<StateKind>(tensor.kind()), tensor.name(), tensor.dtype(),
                    absl::StrJoin(tensor.shape(), ","), digester.Finish());
  }
  return state.Finish(checkpoint.header());
}

}  // namespace shoestring
