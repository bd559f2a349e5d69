// One NCCL communicator under watch: enqueues groups of operations, sees them complete or pass their deadline, aborts.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "parallel/nccl/ledger.h"
#include "parallel/nccl/library.h"
#include "parallel/nccl/plan.h"

namespace shoestring {

struct NcclOptions {
  NcclWho who{};
  NcclId id{};       // the same on all members, never used before
  int max_ctas = 0;  // most thread blocks a collective may occupy, the rest is left to kernels; 0: NCCL decides
  double init_timeout_s = 300;
  double finalize_timeout_s = 60;
  double abort_timeout_s = 30;
  double poll_s = 0.02;  // how often calls under way are looked at
  // Called, with the first failure, when a thread does not come back from NCCL or an abort does not end: nothing in
  // this process can be trusted any more. Empty: log it and end the process with exit code 69.
  std::function<void(const absl::Status&)> on_wedged{};
};

// States: ready -> dead (after the first failure, aborted) -> wedged (the abort itself hung). NCCL can abort safely
// only while no thread is inside it (its user guide, "Fault Tolerance"), so whoever is inside holds a token: the thread
// that enqueues, the watching thread while it looks, or the abort. Non-blocking communicators give the token back soon;
// an owner that does not is what "wedged" means.
class NcclEngine {
 public:
  // Calls on their way, together: Await with it. Copies are as good.
  struct Handle {
    int slot = -1;  // -1: nothing was enqueued
    int64_t sequence = -1;
  };
  struct Request {
    absl::string_view verb;
    absl::string_view name;
    double timeout_s = 0;
    bool own_queue = false;  // on the communicator's own stream, beside later work of `queue`
    bool all_members = false;
  };

  // Joins the communicator: returns when all members have. DEADLINE_EXCEEDED, UNAVAILABLE or INTERNAL otherwise; then
  // nothing is left behind but what a hung abort holds. `library` must live as long as the process.
  static absl::StatusOr<std::unique_ptr<NcclEngine>> Create(NcclLibrary& library, NcclOptions options);
  // Waits for the calls under way and leaves in order, or aborts when that takes too long.
  ~NcclEngine();
  NcclEngine(const NcclEngine&) = delete;
  NcclEngine& operator=(const NcclEngine&) = delete;

  // Enqueues the plan, its operations as one NCCL group, behind what is on `queue`; without own_queue later work of
  // `queue` waits for them.
  absl::StatusOr<Handle> Issue(const Request& request, NcclLibrary::Queue queue, const NcclPlan& plan);
  // Later work of `queue` waits for the call.
  absl::Status Await(Handle handle, NcclLibrary::Queue queue);

  // Gives the communicator up: `why` is its failure from now on, unless it has one.
  void Abort(const absl::Status& why);

  // The first failure; OK while there was none. Also what every later Issue and Await returns.
  absl::Status status() const;
  int under_way();  // calls that have not completed; looks at the device
  NcclLibrary& library() { return library_; }
  const NcclWho& who() const { return options_.who; }

 private:
  struct Slot {
    NcclLibrary::Event ready = nullptr;
    NcclLibrary::Event done = nullptr;
    int64_t sequence = -1;
    bool busy = false;
  };

  NcclEngine(NcclLibrary& library, NcclOptions options);
  absl::Status MakeSlots();
  absl::Status Join();
  void Leave();  // what the destructor does with the communicator

  absl::Status TakeToken(double until_s);  // the failure, if there is or comes one
  void GiveToken();
  // The rest, down to Watch, with the token.
  absl::StatusOr<Handle> IssueInside(const Request& request, NcclLibrary::Queue queue, const NcclPlan& plan);
  absl::Status EnqueueWithin(const NcclPlan& plan, NcclLibrary::Queue queue, double until_s);
  absl::StatusOr<int> TakeSlot(const Request& request, double until_s);
  NcclResult Enqueue(absl::Span<const NcclOp> ops, NcclLibrary::Queue queue);
  NcclResult AwaitIdle(NcclResult result, double until_s);  // while in progress, until the communicator says otherwise
  void Reap();
  absl::Status DeviceFailed(NcclResult result);  // OK of kSuccess, else dies
  absl::Status Die(absl::Status why);            // aborts; gives `why`, or the earlier failure
  void AbortWithin();
  void Inspect();

  void Watch();
  void Wedge(const absl::Status& why);
  std::string Who() const { return options_.who.ToString(); }

  NcclLibrary& library_;
  const NcclOptions options_;
  NcclLibrary::Comm comm_ = nullptr;
  NcclLibrary::Queue own_queue_ = nullptr;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  absl::Status failure_;
  bool inside_ = false;        // somebody holds the token
  double inside_until_s_ = 0;  // when the holder has overstayed
  bool stopping_ = false;
  bool wedged_ = false;

  NcclLedger ledger_;        // whoever holds the token
  std::vector<Slot> slots_;  // the same
  std::thread watch_;
};

}  // namespace shoestring
