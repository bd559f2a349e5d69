// What goes wrong in a group of thread ranks: who is late, who has left, whose calls do not match.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "parallel/thread_group.h"

namespace shoestring {

void ThreadGroup::Abort(int index, const absl::Status& why) {
  Lock lock(mutex_);
  Member& member = *members_[index];
  Fail(member, why);
  Poison(absl::UnavailableError(absl::StrCat(Who(member), " of group '", name_, "' gave up: ", why.ToString())));
  LetGo(lock, member).IgnoreError();
}

void ThreadGroup::Leave(int index, const absl::Status& why) {
  Lock lock(mutex_);
  Member& member = *members_[index];
  MarkLeft(member, why);
  if (member.failure.ok()) member.failure = absl::CancelledError("the communicator is gone");
  LetGo(lock, member).IgnoreError();
}

// After this nobody touches the memory of the member's calls.
absl::Status ThreadGroup::LetGo(Lock& lock, Member& member) {
  while (member.busy) {
    member.waiting = true;
    member.changed.wait(lock);
    member.waiting = false;
  }
  member.in_flight.clear();
  member.background = 0;
  if (member.failure.ok()) Fail(member, poison_);
  return member.failure;
}

void ThreadGroup::Fail(Member& member, absl::Status status) {
  if (!member.failure.ok()) return;
  member.failure = status;
  MarkLeft(member, status);
}

void ThreadGroup::MarkLeft(Member& member, const absl::Status& why) {
  if (member.left) return;
  member.left = true;
  member.left_order = ++left_count_;
  member.left_why = why;
  WakeAll();
}

void ThreadGroup::Poison(absl::Status status) {
  if (!poison_.ok()) return;
  poison_ = std::move(status);
  WakeAll();
}

void ThreadGroup::PoisonMismatch(const Member& a, const CallSignature& call_of_a, const Member& b,
                                 const CallSignature& call_of_b) {
  Poison(absl::FailedPreconditionError(absl::StrCat("calls of group '", name_, "' do not match: ", Who(a), " makes ",
                                                    call_of_a.ToString(), ", but ", Who(b), " makes ",
                                                    call_of_b.ToString())));
}

// The receiver waits for a message that `from` should have sent before its next collective, which it has made.
void ThreadGroup::PoisonSkipped(const Member& from, Member& receiver, const Call& call, int64_t collective) {
  receiver.asked.Assign(call);
  if (collective >= first_open_) {
    PoisonMismatch(from, SlotOf(collective).signature, receiver, receiver.asked);
    return;
  }
  Poison(absl::FailedPreconditionError(
      absl::StrCat("calls of group '", name_, "' do not match: ", Who(receiver), " makes ", receiver.asked.ToString(),
                   ", but ", Who(from), " has made its collective number ", collective, " without that message")));
}

void ThreadGroup::PoisonRows(const ThreadSlot& slot, const RowsMismatch& mismatch) {
  Poison(absl::FailedPreconditionError(absl::StrCat(
      "calls of group '", name_, "' do not match: in ", slot.signature.ToString(), " ", Who(*members_[mismatch.from]),
      " sends ", mismatch.sent, " rows to ", Who(*members_[mismatch.to]), ", which expects ", mismatch.expected)));
}

// Has `other` not given what the call needs of it?
bool ThreadGroup::IsMissing(const Member& other, const Call& call, int64_t collective) const {
  if (call.verb == CallVerb::kSend || call.verb == CallVerb::kReceive) return other.index == call.peer;
  return other.collectives_posted <= collective && (call.verb != CallVerb::kBroadcast || other.index == call.peer);
}

// Fails the member when an open call of the group can no longer be completed.
void ThreadGroup::FailIfHopeless(Member& member, const ThreadCallGroup& group) {
  for (size_t i = 0; i < group.progress_.size() && Alive(member); ++i) {
    const ThreadCallGroup::Progress& progress = group.progress_[i];
    if (progress.done) continue;
    const Call& call = group.calls()[i];
    if (call.verb == CallVerb::kReceive) {
      const Member& from = *members_[call.peer];
      const ThreadMailbox& mailbox = Mailbox(member, call.peer);
      if (mailbox.posted > progress.place) continue;
      if (from.collectives_posted > progress.collective) {
        PoisonSkipped(from, member, call, progress.collective);
        continue;
      }
    }
    if (left_count_ == 0) continue;
    const Member* culprit = nullptr;
    for (const std::unique_ptr<Member>& other : members_) {
      if (!other->left || !IsMissing(*other, call, progress.collective)) continue;
      if (culprit == nullptr || other->left_order < culprit->left_order) culprit = other.get();
    }
    if (culprit == nullptr) continue;
    std::string why = culprit->left_why.ok() ? "" : absl::StrCat(": ", culprit->left_why.ToString());
    Fail(member, absl::UnavailableError(absl::StrCat(What(call), ": ", Who(*culprit), " has left the group", why)));
  }
}

void ThreadGroup::FailIfLate(Member& member, const ThreadCallGroup& group, int64_t now_nanos) {
  for (size_t i = 0; i < group.progress_.size() && Alive(member); ++i) {
    const Call& call = group.calls()[i];
    if (group.progress_[i].done || now_nanos < DeadlineNanos(group, call)) continue;
    Fail(member,
         absl::DeadlineExceededError(absl::StrCat(What(call), ": ", MissingOf(call, group.progress_[i].collective),
                                                  " had not come after ", call.timeout_s, " s")));
  }
}

int64_t ThreadGroup::DeadlineNanos(const CallGroup& group, const Call& call) {
  constexpr double kLongestSeconds = 1e8;  // three years; so that no deadline overflows
  return group.times.started + static_cast<int64_t>(std::clamp(call.timeout_s, 0.0, kLongestSeconds) * 1e9);
}

std::string ThreadGroup::MissingOf(const Call& call, int64_t collective) const {
  constexpr int kNamed = 4;
  std::string missing;
  int count = 0;
  for (const std::unique_ptr<Member>& other : members_) {
    if (!IsMissing(*other, call, collective) || ++count > kNamed) continue;
    absl::StrAppend(&missing, count > 1 ? ", " : "", Who(*other));
  }
  if (count > kNamed) absl::StrAppend(&missing, " and ", count - kNamed, " more");
  return missing;
}

// A message that was sent before the collective, and is not asked for before it, never will be.
void ThreadGroup::CheckNoneMissed(Member& member, const Call& call, int64_t collective) {
  if (member.inbox == nullptr) return;
  for (const std::unique_ptr<Member>& other : members_) {
    const ThreadMailbox& mailbox = member.inbox[other->index];
    if (mailbox.posted <= mailbox.asked) continue;
    const ThreadMessage* message = mailbox.first;
    while (message->place < mailbox.asked) message = message->next;
    if (message->collective > collective) continue;
    member.asked.Assign(call);
    PoisonMismatch(*other, message->signature, member, member.asked);
  }
}

std::string ThreadGroup::Who(const Member& member) const {
  return absl::StrCat("member ", member.index, " (rank ", member.rank.value, ")");
}

std::string ThreadGroup::What(const Call& call) const {
  CallSignature signature;
  signature.Assign(call);
  return absl::StrCat(signature.ToString(), " in group '", name_, "'");
}

}  // namespace shoestring
