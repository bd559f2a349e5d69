// The members of a group of thread ranks: what they share, and how their calls advance without anybody spinning.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "parallel/communicator_call.h"
#include "parallel/mesh.h"
#include "parallel/thread_payload.h"
#include "parallel/thread_slot.h"
#include "parallel/thread_workers.h"

namespace shoestring {

// Calls of one member that started as one, and how far each is.
class ThreadCallGroup final : public CallGroup {
 private:
  friend class ThreadGroup;
  struct Progress {
    int64_t collective = 0;  // collectives that the member had made before
    int64_t place = 0;       // of a receive: among the messages of its pair
    bool done = false;
  };
  std::vector<Progress> progress_;  // beside calls()
  size_t posted_ = 0;               // calls [0, posted_) have left their input
  size_t open_ = 0;                 // calls that are not done
  bool background_ = false;
};

// Every call has two halves that never wait: leaving a copy of its input (in the slot of a collective, in the mailbox
// of a peer), and taking its output once what it needs is there. A member's groups leave their inputs in order of
// start; outputs are taken as they become ready. Whoever finds work does it, one thread at a time for each member: the
// rank while it waits, else a worker. Payloads are copied outside of the lock. All public methods are thread-safe.
class ThreadGroup {
 public:
  ThreadGroup(const RankGroup& group, PayloadPool& payloads, ThreadWorkers& workers);

  // The contracts of Communicator::DoStart, DoWait and DoAbort, for the member at `index`.
  void Start(int index, ThreadCallGroup& group, bool background);
  absl::Status Wait(int index, ThreadCallGroup& group);
  void Abort(int index, const absl::Status& why);
  // The member makes no further call. Others fail when they need what it did not give.
  void Leave(int index, const absl::Status& why);

 private:
  using Lock = std::unique_lock<std::mutex>;
  struct Member final : ThreadWorkers::Task {
    void Run() override { group->RunInBackground(index); }

    ThreadGroup* group = nullptr;
    int index = 0;
    Rank rank;
    std::condition_variable changed;
    bool waiting = false;            // its rank sleeps on `changed`
    bool waits_for_message = false;  // it sleeps for a message, among others
    bool busy = false;               // some thread advances its calls
    bool queued = false;             // for the workers
    bool left = false;
    int64_t left_order = 0;
    absl::Status left_why;
    absl::Status failure;
    int64_t collectives = 0;         // made
    int64_t collectives_posted = 0;  // of which the input is there
    int background = 0;              // of `in_flight`
    std::vector<ThreadCallGroup*> in_flight;
    std::unique_ptr<ThreadMailbox[]> inbox;  // one a sender; made by the first message
    CallSignature asked;                     // room to compare
  };

  void RunInBackground(int index);
  bool Advance(Lock& lock, Member& member);      // false: there was nothing to do
  bool AdvanceOnce(Lock& lock, Member& member);  // one pass over its groups
  void Post(Lock& lock, Member& member, ThreadCallGroup& group, size_t i);
  void PostMessage(Lock& lock, Member& member, ThreadCallGroup& group, size_t i);
  void PostDeposit(Lock& lock, Member& member, ThreadCallGroup& group, size_t i);
  void FillSlot(Lock& lock, ThreadSlot& slot);
  bool TakeIfReady(Lock& lock, Member& member, ThreadCallGroup& group, size_t i);
  bool TakeMessage(Lock& lock, Member& member, ThreadCallGroup& group, size_t i);
  void Finish(ThreadCallGroup& group, size_t i, int64_t arrived_nanos);
  void FinishSlot(ThreadSlot& slot);

  ThreadSlot& SlotOf(int64_t sequence);
  ThreadMailbox& Mailbox(Member& receiver, int from);
  bool Alive(const Member& member) const { return member.failure.ok() && poison_.ok(); }
  void Wake(Member& member);
  void WakeAll();
  void WakeReceivers();  // which may now see that their message will never come

  // What goes wrong.
  void FailIfHopeless(Member& member, const ThreadCallGroup& group);
  void FailIfLate(Member& member, const ThreadCallGroup& group, int64_t now_nanos);
  std::string MissingOf(const Call& call, int64_t collective) const;
  bool IsMissing(const Member& other, const Call& call, int64_t collective) const;
  void CheckNoneMissed(Member& member, const Call& call, int64_t collective);
  void Fail(Member& member, absl::Status status);
  void MarkLeft(Member& member, const absl::Status& why);
  void Poison(absl::Status status);
  void PoisonMismatch(const Member& a, const CallSignature& call_of_a, const Member& b, const CallSignature& call_of_b);
  void PoisonSkipped(const Member& from, Member& receiver, const Call& call, int64_t collective);
  void PoisonRows(const ThreadSlot& slot, const RowsMismatch& mismatch);
  absl::Status LetGo(Lock& lock, Member& member);
  static int64_t DeadlineNanos(const CallGroup& group, const Call& call);
  std::string Who(const Member& member) const;
  std::string What(const Call& call) const;

  const std::string name_;
  PayloadPool& payloads_;
  ThreadWorkers& workers_;

  std::mutex mutex_;  // of all below, except payloads and deposits while their one user copies them
  absl::Status poison_;
  int64_t left_count_ = 0;
  int waiting_for_messages_ = 0;  // members
  std::vector<std::unique_ptr<Member>> members_;
  std::vector<std::unique_ptr<ThreadSlot>> slots_;
  std::vector<ThreadSlot*> idle_slots_;
  std::vector<ThreadSlot*> open_slots_;  // in order of sequence, from first_open_
  int64_t first_open_ = 0;
  std::vector<std::unique_ptr<ThreadMessage>> messages_;
  std::vector<ThreadMessage*> idle_messages_;
};

}  // namespace shoestring
