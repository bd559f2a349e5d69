// Shifting samples into inputs and targets, and the thread that does it ahead.
#include "trainer/batch.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "base/threads.h"

namespace shoestring {
namespace {

// Writes one sequence's part of every row.
void ShiftSample(const BatchShape& shape, const int32_t* sample, int64_t stride, int32_t* values) {
  const int64_t length = shape.sequence_length;
  const int depth = shape.mtp_depth;
  for (int k = 0; k <= depth; ++k) {
    int32_t* ids = values + k * stride;
    int32_t* targets = values + (depth + 1 + k) * stride;
    for (int64_t t = 0; t < length; ++t) {
      ids[t] = sample[t + k] == kNoToken ? shape.eos_id : sample[t + k];
      targets[t] = sample[t + k + 1];
    }
  }
  if (shape.document_mask) WriteFirstVisible(sample, length, shape.eos_id, values + (2 * depth + 2) * stride);
}

absl::Status CheckIds(const BatchShape& shape, const int32_t* sample, int64_t number) {
  for (int64_t i = 0; i < shape.row_tokens(); ++i) {
    if (sample[i] >= kNoToken && sample[i] < shape.vocab_size) continue;
    return absl::DataLossError(absl::StrCat("sample ", number, ", token ", i, ": id ", sample[i],
                                            " is outside the vocabulary of ", shape.vocab_size));
  }
  return absl::OkStatus();
}

}  // namespace

void WriteFirstVisible(const int32_t* ids, int64_t length, int32_t eos_id, int32_t* first_visible) {
  int32_t start = 0;
  for (int64_t t = 0; t < length; ++t) {
    first_visible[t] = start;
    if (ids[t] == eos_id) start = static_cast<int32_t>(t + 1);
  }
}

absl::Status PrepareBatch(TokenSource& source, const BatchShape& shape, const SampleRuns& samples, HostBatch& batch) {
  CHECK_LE(samples.sequences(), shape.max_sequences);
  CHECK_EQ(source.row_tokens(), shape.row_tokens());
  static_assert(kNoToken == -1);  // what a target without token is
  const int64_t stride = shape.max_sequences * shape.sequence_length;
  batch.samples.resize(shape.max_sequences * shape.row_tokens());
  batch.values.resize(shape.rows() * stride);
  batch.runs = samples;
  batch.sequences = 0;
  for (const IndexRange& run : samples.runs) {
    if (run.count == 0) continue;
    int32_t* const first = batch.samples.data() + batch.sequences * shape.row_tokens();
    if (absl::Status status = source.Fill(run.first, run.count, first); !status.ok()) {
      return WithContext(status, absl::StrCat("samples ", run.first, " to ", run.first + run.count - 1));
    }
    for (int64_t s = 0; s < run.count; ++s, ++batch.sequences) {
      const int32_t* sample = first + s * shape.row_tokens();
      RETURN_IF_ERROR(CheckIds(shape, sample, run.first + s));
      ShiftSample(shape, sample, stride, batch.values.data() + batch.sequences * shape.sequence_length);
    }
  }
  return absl::OkStatus();
}

void PadBatch(const BatchShape& shape, int64_t sequences, HostBatch& batch) {
  CHECK_LE(sequences, shape.max_sequences);
  const int64_t stride = shape.max_sequences * shape.sequence_length;
  std::fill(batch.samples.begin(), batch.samples.begin() + shape.row_tokens(), kNoToken);
  for (; batch.sequences < sequences; ++batch.sequences) {
    ShiftSample(shape, batch.samples.data(), stride, batch.values.data() + batch.sequences * shape.sequence_length);
  }
}

int64_t CountTargets(const BatchShape& shape, const HostBatch& batch) {
  const int32_t* targets = batch.values.data() + (shape.mtp_depth + 1) * shape.max_sequences * shape.sequence_length;
  const int64_t count = batch.sequences * shape.sequence_length;
  return count - std::count(targets, targets + count, kNoToken);
}

BatchPrefetcher::BatchPrefetcher(TokenSource& source, const BatchShape& shape) : source_(source), shape_(shape) {}

BatchPrefetcher::~BatchPrefetcher() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void BatchPrefetcher::Prefetch(const SampleRuns& samples) {
  if (threads_.empty()) threads_ = StartThreads(1, [this](int) { Loop(); });
  if (threads_.empty()) return;  // Take prepares it
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return !wanted_; });
  samples_ = samples;
  wanted_ = true;
  changed_.notify_all();
}

absl::StatusOr<const HostBatch*> BatchPrefetcher::Take(const SampleRuns& samples) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return !wanted_; });
  if (!(samples_ == samples)) fill_status_ = PrepareBatch(source_, shape_, samples, batches_[ready_]);
  samples_ = {};
  RETURN_IF_ERROR(fill_status_);
  const HostBatch* batch = &batches_[ready_];
  ready_ = 1 - ready_;
  return batch;
}

void BatchPrefetcher::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return wanted_ || stop_; });
    if (stop_) return;
    HostBatch& batch = batches_[ready_];
    const SampleRuns samples = samples_;
    lock.unlock();
    absl::Status status = PrepareBatch(source_, shape_, samples, batch);
    lock.lock();
    fill_status_ = std::move(status);
    wanted_ = false;
    changed_.notify_all();
  }
}

DeviceBatch::DeviceBatch(Arena& arena, const BatchShape& shape, int64_t micro_batch_sequences)
    : shape_(shape),
      tokens_(micro_batch_sequences * shape.sequence_length),
      values_(arena.Allocate(Purpose::kData, "token ids and targets", DType::kI32, shape.rows(),
                             shape.max_sequences * shape.sequence_length)),
      positions_(arena.Allocate(Purpose::kData, "positions", DType::kI32, 1, tokens_)) {
  CHECK_LE(shape.mtp_depth, kMaxMtpDepth);
}

void DeviceBatch::WritePositions(Backend& backend, Stream& stream) {
  std::vector<int32_t> positions(tokens_);
  for (int64_t t = 0; t < tokens_; ++t) positions[t] = static_cast<int32_t>(t % shape_.sequence_length);
  backend.CopyFromHost(stream, positions.data(), positions_);
  backend.Synchronize(stream);
}

void DeviceBatch::Upload(Backend& backend, Stream& stream, const HostBatch& batch) {
  const int64_t stride = shape_.max_sequences * shape_.sequence_length;
  for (int row = 0; row < shape_.rows(); ++row) {
    backend.CopyFromHost(stream, batch.values.data() + row * stride,
                         values_.Rows(row, 1).Columns(0, batch.sequences * shape_.sequence_length));
  }
  backend.Synchronize(stream);
}

MicroBatchTokens DeviceBatch::MicroBatch(int64_t index) const {
  const auto row = [&](int r) -> ConstView { return values_.Rows(r, 1).Columns(index * tokens_, tokens_); };
  MicroBatchTokens tokens;
  for (int k = 0; k <= shape_.mtp_depth; ++k) {
    tokens.ids[k] = row(k);
    tokens.targets[k] = row(shape_.mtp_depth + 1 + k);
  }
  tokens.positions = positions_;
  if (shape_.document_mask) tokens.first_visible = row(2 * shape_.mtp_depth + 2);
  return tokens;
}

}  // namespace shoestring
