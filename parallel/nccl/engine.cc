// The token, the watching thread, joining, leaving and aborting.
#include "parallel/nccl/engine.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

constexpr int kSlots = 64;
constexpr int kNodeGone = 69;  // exit code: a peer is gone, retry elsewhere

double Now() { return RealClock().MonotonicSeconds(); }

std::chrono::duration<double> Seconds(double seconds) {
  return std::chrono::duration<double>(std::min(std::max(seconds, 0.0), 86400.0));
}

// Sleeps a little longer each time, 20 us to 1 ms.
void Pause(int round) { RealClock().SleepNanos(std::min<int64_t>(20'000 * (round + 1), 1'000'000)); }

}  // namespace

NcclEngine::NcclEngine(NcclLibrary& library, NcclOptions options)
    : library_(library), options_(std::move(options)), ledger_(options_.who, kSlots + 1) {}

absl::StatusOr<std::unique_ptr<NcclEngine>> NcclEngine::Create(NcclLibrary& library, NcclOptions options) {
  std::unique_ptr<NcclEngine> engine(new NcclEngine(library, std::move(options)));
  RETURN_IF_ERROR(engine->MakeSlots());
  RETURN_IF_ERROR(engine->Join());
  engine->watch_ = std::thread([raw = engine.get()] { raw->Watch(); });
  return engine;
}

absl::Status NcclEngine::MakeSlots() {
  slots_.resize(kSlots);
  for (Slot& slot : slots_) {
    RETURN_IF_ERROR(DeviceFailed(library_.MakeEvent(&slot.ready)));
    RETURN_IF_ERROR(DeviceFailed(library_.MakeEvent(&slot.done)));
  }
  return DeviceFailed(library_.MakeQueue(&own_queue_));
}

absl::Status NcclEngine::Join() {
  const double began_s = Now();
  const double until_s = began_s + options_.init_timeout_s;
  ledger_.Begin("init", "joining the communicator", began_s, options_.init_timeout_s).all_members = true;
  const NcclCommConfig config{.name = absl::StrCat(options_.who.group), .max_ctas = options_.max_ctas};
  NcclResult result =
      library_.Init(&comm_, static_cast<int>(options_.who.ranks.size()), options_.id, options_.who.index, config);
  result = AwaitIdle(result, until_s);
  if (result == NcclResult::kSuccess) {
    ledger_.DropNewest();
    return absl::OkStatus();
  }
  if (result == NcclResult::kInProgress) return Die(*ledger_.Judge(until_s, NcclResult::kSuccess, ""));
  return Die(ledger_.Failed(result, comm_ == nullptr ? "" : library_.LastError(comm_)));
}

NcclEngine::~NcclEngine() {
  if (watch_.joinable()) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    watch_.join();
  }
  if (wedged_) return;  // a hung thread may still use all of it
  Leave();
  for (const Slot& slot : slots_) {
    if (slot.ready != nullptr) library_.DestroyEvent(slot.ready);
    if (slot.done != nullptr) library_.DestroyEvent(slot.done);
  }
  if (own_queue_ != nullptr) library_.DestroyQueue(own_queue_);
}

void NcclEngine::Leave() {
  if (comm_ == nullptr) return;
  const double until_s = Now() + options_.finalize_timeout_s;
  ledger_.Begin("finalize", "leaving the communicator", Now(), options_.finalize_timeout_s).all_members = true;
  const NcclResult result = AwaitIdle(library_.Finalize(comm_), until_s);
  if (result == NcclResult::kSuccess) {
    library_.Destroy(comm_);
    comm_ = nullptr;
  } else {
    (void)Die(ledger_.Failed(result, library_.LastError(comm_)));
  }
}

absl::Status NcclEngine::status() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

int NcclEngine::under_way() {
  if (!TakeToken(Now() + options_.abort_timeout_s).ok()) return 0;
  Reap();
  const int calls = ledger_.under_way();
  GiveToken();
  return calls;
}

absl::Status NcclEngine::TakeToken(double until_s) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return !inside_ || !failure_.ok(); });
  RETURN_IF_ERROR(failure_);
  inside_ = true;
  inside_until_s_ = until_s + options_.abort_timeout_s;
  return absl::OkStatus();
}

void NcclEngine::GiveToken() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    inside_ = false;
  }
  changed_.notify_all();
}

absl::StatusOr<NcclEngine::Handle> NcclEngine::Issue(const Request& request, NcclLibrary::Queue queue,
                                                     const NcclPlan& plan) {
  RETURN_IF_ERROR(TakeToken(Now() + request.timeout_s));
  absl::StatusOr<Handle> handle = IssueInside(request, queue, plan);
  GiveToken();
  return handle;
}

absl::StatusOr<NcclEngine::Handle> NcclEngine::IssueInside(const Request& request, NcclLibrary::Queue queue,
                                                           const NcclPlan& plan) {
  const double began_s = Now();
  const double until_s = began_s + request.timeout_s;
  ASSIGN_OR_RETURN(const int index, TakeSlot(request, until_s));
  Slot& slot = slots_[index];
  NcclCall& entry = ledger_.Begin(request.verb, request.name, began_s, request.timeout_s);
  entry.all_members = request.all_members;
  if (!request.all_members) {
    for (const NcclOp& op : plan.ops) entry.AddPeer(op.peer);
  }
  if (plan.ops.empty()) {  // nothing for anyone; the call keeps its number
    ledger_.DropNewest();
    return Handle{};
  }
  NcclLibrary::Queue on = queue;
  if (request.own_queue) {
    on = own_queue_;
    RETURN_IF_ERROR(DeviceFailed(library_.Record(slot.ready, queue)));
    RETURN_IF_ERROR(DeviceFailed(library_.WaitEvent(on, slot.ready)));
  }
  RETURN_IF_ERROR(EnqueueWithin(plan, on, until_s));
  RETURN_IF_ERROR(DeviceFailed(library_.Record(slot.done, on)));
  entry.event = index;
  slot.sequence = entry.sequence;
  slot.busy = true;
  return Handle{.slot = index, .sequence = entry.sequence};
}

absl::Status NcclEngine::EnqueueWithin(const NcclPlan& plan, NcclLibrary::Queue queue, double until_s) {
  for (const NcclCopy& copy : plan.before) RETURN_IF_ERROR(DeviceFailed(library_.Copy(copy, queue)));
  const NcclResult result = AwaitIdle(Enqueue(plan.ops, queue), until_s);
  if (result == NcclResult::kInProgress) return Die(*ledger_.Judge(until_s, NcclResult::kSuccess, ""));
  if (result != NcclResult::kSuccess) return Die(ledger_.Failed(result, library_.LastError(comm_)));
  for (const NcclCopy& copy : plan.after) RETURN_IF_ERROR(DeviceFailed(library_.Copy(copy, queue)));
  return absl::OkStatus();
}

absl::StatusOr<int> NcclEngine::TakeSlot(const Request& request, double until_s) {
  for (int round = 0;; ++round) {
    const auto free = std::find_if(slots_.begin(), slots_.end(), [](const Slot& slot) { return !slot.busy; });
    if (free != slots_.end()) return static_cast<int>(free - slots_.begin());
    Reap();
    RETURN_IF_ERROR(status());
    if (ledger_.under_way() < kSlots) continue;
    NcclResult state = NcclResult::kSuccess;
    if (library_.AsyncError(comm_, &state) != NcclResult::kSuccess) state = NcclResult::kInternalError;
    std::optional<absl::Status> verdict = ledger_.Judge(Now(), state, "");
    if (!verdict && Now() >= until_s) {
      verdict =
          absl::DeadlineExceededError(absl::StrCat(Who(), ": ", request.verb, " '", request.name, "': ", kSlots,
                                                   " earlier calls still under way after ", request.timeout_s, " s"));
    }
    if (verdict) return Die(*std::move(verdict));
    Pause(round);
  }
}

NcclResult NcclEngine::Enqueue(absl::Span<const NcclOp> ops, NcclLibrary::Queue queue) {
  NcclResult first = library_.GroupStart();
  for (const NcclOp& op : ops) {
    NcclResult result = NcclResult::kSuccess;
    switch (op.kind) {
      case NcclOp::Kind::kSend: result = library_.Send(op.from, op.count, op.peer, comm_, queue); break;
      case NcclOp::Kind::kReceive: result = library_.Receive(op.to, op.count, op.peer, comm_, queue); break;
      case NcclOp::Kind::kAllReduce: result = library_.AllReduce(op.to, op.count, op.type, comm_, queue); break;
      case NcclOp::Kind::kReduceScatter:
        result = library_.ReduceScatter(op.from, op.to, op.count, op.type, comm_, queue);
        break;
      case NcclOp::Kind::kAllGather: result = library_.AllGather(op.from, op.to, op.count, comm_, queue); break;
      case NcclOp::Kind::kBroadcast:
        result = library_.Broadcast(op.from, op.to, op.count, op.peer, comm_, queue);
        break;
    }
    if (first == NcclResult::kSuccess && result != NcclResult::kInProgress) first = result;
  }
  const NcclResult ended = library_.GroupEnd();
  return first == NcclResult::kSuccess ? ended : first;
}

NcclResult NcclEngine::AwaitIdle(NcclResult result, double until_s) {
  for (int round = 0; result == NcclResult::kInProgress; ++round) {
    NcclResult state = NcclResult::kSuccess;
    const NcclResult asked = library_.AsyncError(comm_, &state);
    result = asked == NcclResult::kSuccess ? state : asked;
    if (result != NcclResult::kInProgress) break;
    if (Now() >= until_s) break;
    Pause(round);
  }
  return result;
}

absl::Status NcclEngine::Await(Handle handle, NcclLibrary::Queue queue) {
  RETURN_IF_ERROR(TakeToken(Now() + options_.abort_timeout_s));
  absl::Status status;
  // A slot that serves a later call served this one to its end.
  if (handle.slot >= 0 && slots_[handle.slot].sequence == handle.sequence) {
    status = DeviceFailed(library_.WaitEvent(queue, slots_[handle.slot].done));
  }
  GiveToken();
  return status;
}

void NcclEngine::Abort(const absl::Status& why) {
  CHECK(!why.ok());
  if (!TakeToken(Now() + options_.abort_timeout_s).ok()) return;
  (void)Die(why);
  GiveToken();
}

void NcclEngine::Reap() {
  NcclResult device = NcclResult::kSuccess;
  ledger_.Reap([&](int index) {
    bool done = false;
    if (device == NcclResult::kSuccess) device = library_.EventDone(slots_[index].done, &done);
    if (done) slots_[index].busy = false;
    return done;
  });
  (void)DeviceFailed(device);
}

absl::Status NcclEngine::DeviceFailed(NcclResult result) {
  if (result == NcclResult::kSuccess) return absl::OkStatus();
  return Die(
      absl::Status(NcclResultCode(result), absl::StrCat(Who(), ": the device failed: ", library_.LastError(comm_))));
}

void NcclEngine::Inspect() {
  Reap();
  if (!status().ok()) return;
  NcclResult state = NcclResult::kSuccess;
  if (library_.AsyncError(comm_, &state) != NcclResult::kSuccess) state = NcclResult::kInternalError;
  const bool bad = state != NcclResult::kSuccess && state != NcclResult::kInProgress;
  std::optional<absl::Status> verdict = ledger_.Judge(Now(), state, bad ? library_.LastError(comm_) : "");
  if (verdict) (void)Die(*std::move(verdict));
}

void NcclEngine::Watch() {
  library_.EnterThread();
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_ && failure_.ok()) {
    changed_.wait_for(lock, Seconds(options_.poll_s), [this] { return stopping_ || !failure_.ok(); });
    if (stopping_ || !failure_.ok()) break;
    if (inside_) {
      if (Now() < inside_until_s_) continue;
      failure_ = absl::DeadlineExceededError(absl::StrCat(Who(), ": a thread does not come back from NCCL"));
      lock.unlock();
      Wedge(status());
      return;
    }
    inside_ = true;
    inside_until_s_ = std::numeric_limits<double>::infinity();
    lock.unlock();
    Inspect();
    lock.lock();
    inside_ = false;
    changed_.notify_all();
  }
}

absl::Status NcclEngine::Die(absl::Status why) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.ok()) return failure_;
    failure_ = why;
    inside_until_s_ = std::numeric_limits<double>::infinity();  // the abort has a deadline of its own
  }
  changed_.notify_all();
  Log(Severity::kError, options_.who.ranks[options_.who.index], why.message());
  if (comm_ != nullptr) AbortWithin();
  return why;
}

void NcclEngine::AbortWithin() {
  struct Progress {
    std::mutex mutex;
    std::condition_variable changed;
    bool finished = false;
  };
  const auto progress = std::make_shared<Progress>();
  std::thread aborting([progress, comm = comm_, library = &library_] {
    library->EnterThread();
    library->Abort(comm);
    const std::lock_guard<std::mutex> lock(progress->mutex);
    progress->finished = true;
    progress->changed.notify_all();
  });
  std::unique_lock<std::mutex> lock(progress->mutex);
  progress->changed.wait_for(lock, Seconds(options_.abort_timeout_s), [&] { return progress->finished; });
  if (progress->finished) {
    lock.unlock();
    aborting.join();
    comm_ = nullptr;
    return;
  }
  lock.unlock();
  aborting.detach();
  Wedge(status());
}

void NcclEngine::Wedge(const absl::Status& why) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    wedged_ = true;
  }
  changed_.notify_all();
  if (options_.on_wedged) {
    options_.on_wedged(why);
    return;
  }
  Log(Severity::kError, options_.who.ranks[options_.who.index],
      absl::StrCat(Who(), ": NCCL hangs even in its abort; this process ends, start it again elsewhere"));
  std::_Exit(kNodeGone);
}

}  // namespace shoestring
