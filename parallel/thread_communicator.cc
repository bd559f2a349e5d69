// Each communicator is a seat in a ThreadGroup, which does the work.
#include "parallel/thread_communicator.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "parallel/thread_group.h"

namespace shoestring {
namespace {

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(ThreadGroup& group, int size, int index) : Communicator(size, index), group_(group) {}
  ~ThreadCommunicator() override { group_.Leave(index(), absl::OkStatus()); }
  absl::string_view body() const override { return "thread"; }

 private:
  std::unique_ptr<CallGroup> NewGroup() override { return std::make_unique<ThreadCallGroup>(); }
  void DoStart(Stream&, CallGroup& group, bool background) override {
    group_.Start(index(), static_cast<ThreadCallGroup&>(group), background);
  }
  absl::Status DoWait(Stream&, CallGroup& group) override {
    return group_.Wait(index(), static_cast<ThreadCallGroup&>(group));
  }
  void DoAbort(const absl::Status& why) override { group_.Abort(index(), why); }

  ThreadGroup& group_;
};

}  // namespace

ThreadWorld::ThreadWorld(int size, const Options& options) : size_(size), workers_(options.workers) {
  CHECK_GT(size, 0);
}

ThreadWorld::~ThreadWorld() = default;

std::vector<std::unique_ptr<Communicator>> ThreadWorld::MakeGroup(const RankGroup& group) {
  CHECK(!group.members.empty());
  for (Rank rank : group.members) CHECK(rank.value >= 0 && rank.value < size_);
  const std::lock_guard<std::mutex> lock(mutex_);
  groups_.push_back(std::make_unique<ThreadGroup>(group, payloads_, workers_));
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int i = 0; i < group.size(); ++i) {
    communicators.push_back(std::make_unique<ThreadCommunicator>(*groups_.back(), group.size(), i));
  }
  return communicators;
}

}  // namespace shoestring
