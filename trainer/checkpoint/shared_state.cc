// Rank 0 asks, everyone answers with the bytes it has and zeros for the rest; the answers are added as integers.
#include "trainer/checkpoint/shared_state.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "trainer/checkpoint/read_state.h"
#include "trainer/checkpoint/stored_tensors.h"
#include "trainer/checkpoint/train_state_io.h"

namespace shoestring {
namespace {

constexpr int64_t kWord = 8;  // bytes are added by such many: one rank has them, the others add zero
constexpr int64_t kRequestWords = 4;
enum class Order : int64_t { kRead, kSaved, kFailed };
struct Request {
  int64_t order = 0;
  int64_t tensor = 0;
  int64_t begin = 0;  // byte of the tensor
  int64_t size = 0;
};

// What each rank answers from; rank 0's own included.
class Answers {
 public:
  static absl::StatusOr<Answers> Open(const TrainState& state, Backend& backend, Stream& stream, const RankLinks& links,
                                      int64_t block_bytes) {
    const int64_t words = std::max<int64_t>((block_bytes + kWord - 1) / kWord, kRequestWords);
    std::unique_ptr<Memory> shared = backend.Allocate(words * kWord);
    if (shared == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("saving: there are no ", words * kWord, " bytes left to share a block of the state"));
    }
    return Answers(state, backend, stream, links, words, std::move(shared));
  }

  absl::Status Ask(const Request& request) {
    request_ = {request.order, request.tensor, request.begin, request.size};
    return Share();
  }
  absl::StatusOr<Request> Hear() {
    RETURN_IF_ERROR(Share());
    return Request{request_[0], request_[1], request_[2], request_[3]};
  }
  // The bytes of a request, on every rank.
  absl::StatusOr<const char*> Gather(const Request& request) {
    const int64_t words = (request.size + kWord - 1) / kWord;
    CHECK_LE(words, static_cast<int64_t>(words_.size()));
    std::fill_n(words_.begin(), words, 0);
    char* const bytes = reinterpret_cast<char*>(words_.data());
    for (const StatePart& part : parts_) {
      if (static_cast<int64_t>(part.tensor) != request.tensor) continue;
      const int64_t size = SizeOf(part.view.dtype);
      const int64_t first = std::max(request.begin / size, part.first);
      const int64_t end = std::min((request.begin + request.size) / size, part.first + part.view.elements());
      if (first >= end) continue;
      backend_.CopyToHost(stream_, part.view.Columns(first - part.first, end - first),
                          bytes + first * size - request.begin);
    }
    backend_.Synchronize(stream_);
    const View sum(shared_->data(), DType::kI64, 1, words);
    backend_.CopyFromHost(stream_, words_.data(), sum);
    RETURN_IF_ERROR(links_.world->AllReduce(stream_, sum, links_.Named("state")));
    backend_.CopyToHost(stream_, sum, words_.data());
    backend_.Synchronize(stream_);
    return bytes;
  }

 private:
  Answers(const TrainState& state, Backend& backend, Stream& stream, const RankLinks& links, int64_t words,
          std::unique_ptr<Memory> shared)
      : backend_(backend),
        stream_(stream),
        links_(links),
        parts_(PartsOf(state, links, StateScope::kSpoken)),
        words_(words),
        request_(kRequestWords),
        shared_(std::move(shared)) {}

  absl::Status Share() {
    const View view(shared_->data(), DType::kI64, 1, kRequestWords);
    backend_.CopyFromHost(stream_, request_.data(), view);
    RETURN_IF_ERROR(links_.world->Broadcast(stream_, view, 0, links_.Named("save")));
    backend_.CopyToHost(stream_, view, request_.data());
    backend_.Synchronize(stream_);
    return absl::OkStatus();
  }

  Backend& backend_;
  Stream& stream_;
  const RankLinks& links_;
  const std::vector<StatePart> parts_;
  std::vector<int64_t> words_;
  std::vector<int64_t> request_;
  std::unique_ptr<Memory> shared_;  // the backend's, where communicators read and write
};

absl::Status Serve(Answers& answers) {
  while (true) {
    ASSIGN_OR_RETURN(const Request request, answers.Hear());
    const Order order = static_cast<Order>(request.order);
    if (order == Order::kSaved) return absl::OkStatus();
    // Rank 0 knows why, and says so; this one only goes with it.
    if (order == Order::kFailed) return absl::UnavailableError("rank 0 could not save the checkpoint");
    RETURN_IF_ERROR(answers.Gather(request).status());
  }
}

}  // namespace

absl::StatusOr<SavedCheckpoint> SaveShared(FileSystem& fs, const std::string& directory,
                                           const checkpoint::SnapshotHeader& header, const TrainState& state,
                                           Backend& backend, Stream& stream, const RankLinks& links,
                                           const SaveOptions& options) {
  ASSIGN_OR_RETURN(Answers answers, Answers::Open(state, backend, stream, links, options.block_bytes));
  if (links.rank != Rank(0)) {
    RETURN_IF_ERROR(Serve(answers));
    return SavedCheckpoint();
  }
  Snapshot snapshot{header, WholeStateTensors(state)};
  SetPosition(state.position, snapshot.header);
  const StateTensor* const first = snapshot.tensors.data();
  const absl::StatusOr<SavedCheckpoint> saved =
      SaveCheckpoint(fs, directory, snapshot, options,
                     [&](const StateTensor& tensor, int64_t begin, int64_t size, std::string& buffer) -> absl::Status {
                       const Request request{static_cast<int64_t>(Order::kRead), &tensor - first, begin, size};
                       RETURN_IF_ERROR(answers.Ask(request));
                       ASSIGN_OR_RETURN(const char* bytes, answers.Gather(request));
                       buffer.assign(bytes, static_cast<size_t>(size));
                       return absl::OkStatus();
                     });
  RETURN_IF_ERROR(answers.Ask({static_cast<int64_t>(saved.ok() ? Order::kSaved : Order::kFailed), 0, 0, 0}));
  return saved;
}

absl::Status ReadShared(FileSystem& fs, const OpenedCheckpoint& checkpoint, const RankLinks& links, Backend& backend,
                        Stream& stream, TrainState& state) {
  const std::vector<StateTensor> tensors = WholeStateTensors(state);
  if (const absl::Status fit = CheckTensors(checkpoint.manifest, tensors, Coverage::kWholeState); !fit.ok()) {
    return WithContext(fit, checkpoint.path);
  }
  ASSIGN_OR_RETURN(const StoredTensors stored, StoredTensors::Open(fs, checkpoint));
  std::string buffer;
  for (const StatePart& part : PartsOf(state, links, StateScope::kKept)) {
    const StateTensor& tensor = tensors[part.tensor];
    const int64_t size = SizeOf(part.view.dtype);
    buffer.resize(static_cast<size_t>(part.view.bytes()));
    RETURN_IF_ERROR(
        stored.Read(stored.Find(tensor.kind, tensor.name), part.first * size, part.view.bytes(), buffer.data()));
    backend.CopyFromHost(stream, buffer.data(), part.view);
    backend.Synchronize(stream);
  }
  state.position = PositionOf(checkpoint.header());
  return absl::OkStatus();
}

}  // namespace shoestring
