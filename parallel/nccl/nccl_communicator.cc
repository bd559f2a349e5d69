// Groups of calls as NCCL groups: plans them, lets the engine enqueue and watch them.
#include "parallel/nccl/nccl_communicator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "parallel/nccl/plan.h"

namespace shoestring {
namespace {

// Staging memory grows to what the largest group needed, and stays.
class NcclCallGroup final : public CallGroup {
 public:
  explicit NcclCallGroup(NcclLibrary& library) : library_(library) {}
  ~NcclCallGroup() override { library_.Free(staging_); }

  absl::Status Plan(int index, int size) {
    const int64_t bytes = NcclStagingBytes(calls());
    if (bytes > capacity_bytes_) {
      library_.Free(std::exchange(staging_, nullptr));
      capacity_bytes_ = 0;
      if (library_.Allocate(bytes, &staging_) != NcclResult::kSuccess) {
        return absl::ResourceExhaustedError(absl::StrCat("'", calls().front().name, "': no ", bytes,
                                                         " B of device memory to pack views with gaps between rows; ",
                                                         library_.LastError(nullptr)));
      }
      capacity_bytes_ = bytes;
    }
    MakeNcclPlan(index, size, calls(), staging_, plan);
    return absl::OkStatus();
  }

  NcclPlan plan;
  NcclEngine::Handle handle;
  bool background = false;
  absl::Status status;  // of its start

 private:
  NcclLibrary& library_;
  std::byte* staging_ = nullptr;
  int64_t capacity_bytes_ = 0;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<NcclEngine> engine, int size, int index)
      : Communicator(size, index), engine_(std::move(engine)) {}
  absl::string_view body() const override { return "nccl"; }

 private:
  std::unique_ptr<CallGroup> NewGroup() override { return std::make_unique<NcclCallGroup>(engine_->library()); }

  void DoStart(Stream& stream, CallGroup& base, bool background) override {
    auto& group = static_cast<NcclCallGroup&>(base);
    group.background = background;
    group.handle = {};
    group.status = Start(stream, group);
  }

  absl::Status Start(Stream& stream, NcclCallGroup& group) {
    if (group.calls().empty()) return engine_->status();
    RETURN_IF_ERROR(group.Plan(index(), size()));
    const Call& first = group.calls().front();
    NcclEngine::Request request{.verb = Name(first.verb), .name = first.name, .timeout_s = first.timeout_s};
    request.own_queue = group.background;
    for (const Call& call : group.calls()) {
      request.timeout_s = std::min(request.timeout_s, call.timeout_s);
      request.all_members |= IsCollective(call.verb);
    }
    ASSIGN_OR_RETURN(group.handle, engine_->Issue(request, engine_->library().QueueOf(stream), group.plan));
    return absl::OkStatus();
  }

  // The host does not wait: `stream` does.
  absl::Status DoWait(Stream& stream, CallGroup& base) override {
    auto& group = static_cast<NcclCallGroup&>(base);
    RETURN_IF_ERROR(group.status);
    if (!group.background) return engine_->status();
    return engine_->Await(group.handle, engine_->library().QueueOf(stream));
  }

  void DoAbort(const absl::Status& why) override { engine_->Abort(why); }

  std::unique_ptr<NcclEngine> engine_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(NcclLibrary& library, NcclOptions options) {
  const int size = static_cast<int>(options.who.ranks.size());
  const int index = options.who.index;
  ASSIGN_OR_RETURN(std::unique_ptr<NcclEngine> engine, NcclEngine::Create(library, std::move(options)));
  return std::make_unique<NcclCommunicator>(std::move(engine), size, index);
}

}  // namespace shoestring
