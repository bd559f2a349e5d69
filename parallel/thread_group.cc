// How the calls of thread ranks advance. What goes wrong is in thread_group_failure.cc.
#include "parallel/thread_group.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "base/clock.h"

namespace shoestring {
namespace {

int64_t Now() { return RealClock().MonotonicNanos(); }

}  // namespace

ThreadGroup::ThreadGroup(const RankGroup& group, PayloadPool& payloads, ThreadWorkers& workers)
    : name_(group.name), payloads_(payloads), workers_(workers) {
  for (int i = 0; i < group.size(); ++i) {
    members_.push_back(std::make_unique<Member>());
    members_.back()->group = this;
    members_.back()->index = i;
    members_.back()->rank = group.members[i];
    members_.back()->asked.name.reserve(kUsualNameBytes);
  }
}

void ThreadGroup::Start(int index, ThreadCallGroup& group, bool background) {
  const Lock lock(mutex_);
  Member& member = *members_[index];
  const absl::Span<const Call> calls = group.calls();
  group.progress_.resize(calls.size());
  group.posted_ = 0;
  group.open_ = calls.size();
  group.background_ = background;
  for (size_t i = 0; i < calls.size(); ++i) {
    ThreadCallGroup::Progress& progress = group.progress_[i];
    progress = {.collective = member.collectives};
    if (calls[i].verb == CallVerb::kReceive) progress.place = Mailbox(member, calls[i].peer).asked++;
    if (!IsCollective(calls[i].verb)) continue;
    CheckNoneMissed(member, calls[i], progress.collective);
    ++member.collectives;
  }
  if (calls.empty()) return;
  member.in_flight.push_back(&group);
  if (!background) return;
  ++member.background;
  Wake(member);
}

absl::Status ThreadGroup::Wait(int index, ThreadCallGroup& group) {
  Lock lock(mutex_);
  Member& member = *members_[index];
  while (group.open_ > 0) {
    int64_t deadline = INT64_MAX;
    if (!member.busy) {
      if (!Alive(member)) return LetGo(lock, member);
      if (Advance(lock, member)) continue;
      const int64_t now = Now();
      FailIfHopeless(member, group);
      FailIfLate(member, group, now);
      if (!Alive(member)) continue;
      member.waits_for_message = false;
      for (size_t i = 0; i < group.progress_.size(); ++i) {
        if (group.progress_[i].done) continue;
        deadline = std::min(deadline, DeadlineNanos(group, group.calls()[i]) - now);
        if (group.calls()[i].verb == CallVerb::kReceive) member.waits_for_message = true;
      }
    }
    member.waiting = true;
    waiting_for_messages_ += member.waits_for_message ? 1 : 0;
    if (deadline == INT64_MAX) {  // a worker is at it, and will say when it has done
      member.changed.wait(lock);
    } else {
      member.changed.wait_for(lock, std::chrono::nanoseconds(deadline));
    }
    waiting_for_messages_ -= member.waits_for_message ? 1 : 0;
    member.waiting = false;
  }
  return absl::OkStatus();
}

void ThreadGroup::RunInBackground(int index) {
  Lock lock(mutex_);
  Member& member = *members_[index];
  member.queued = false;
  if (!member.busy) Advance(lock, member);
}

bool ThreadGroup::Advance(Lock& lock, Member& member) {
  CHECK(!member.busy);
  member.busy = true;
  bool moved = false;
  while (Alive(member) && AdvanceOnce(lock, member)) moved = true;
  member.busy = false;
  if (member.waiting) member.changed.notify_one();
  return moved;
}

bool ThreadGroup::AdvanceOnce(Lock& lock, Member& member) {
  bool moved = false;
  // The rank may start groups meanwhile, which go to the end; only this thread takes groups out.
  for (size_t g = 0; g < member.in_flight.size();) {
    ThreadCallGroup& group = *member.in_flight[g];
    while (group.posted_ < group.calls().size()) {
      Post(lock, member, group, group.posted_++);
      moved = true;
      if (!Alive(member)) return moved;
    }
    for (size_t i = 0; i < group.progress_.size(); ++i) {
      if (!group.progress_[i].done && TakeIfReady(lock, member, group, i)) moved = true;
      if (!Alive(member)) return moved;
    }
    if (group.open_ > 0) {
      ++g;
      continue;
    }
    group.times.done = Now();
    if (group.background_) --member.background;
    member.in_flight.erase(member.in_flight.begin() + g);
    if (member.waiting) member.changed.notify_one();
  }
  return moved;
}

void ThreadGroup::Post(Lock& lock, Member& member, ThreadCallGroup& group, size_t i) {
  const CallVerb verb = group.calls()[i].verb;
  if (verb == CallVerb::kSend) PostMessage(lock, member, group, i);
  if (IsCollective(verb)) PostDeposit(lock, member, group, i);
}

void ThreadGroup::PostMessage(Lock& lock, Member& member, ThreadCallGroup& group, size_t i) {
  const Call& call = group.calls()[i];
  Member& to = *members_[call.peer];
  if (to.left) {
    FailIfHopeless(member, group);
    return;
  }
  if (idle_messages_.empty()) {
    messages_.push_back(std::make_unique<ThreadMessage>());
    messages_.back()->signature.name.reserve(kUsualNameBytes);
    idle_messages_.reserve(messages_.size());
    idle_messages_.push_back(messages_.back().get());
  }
  ThreadMessage& message = *idle_messages_.back();
  idle_messages_.pop_back();
  lock.unlock();
  message.signature.Assign(call);
  message.collective = group.progress_[i].collective;
  message.payload = payloads_.Acquire(call.send.bytes());
  message.next = nullptr;
  CopyRows(call.send, message.payload.data());
  lock.lock();
  ThreadMailbox& mailbox = Mailbox(to, member.index);
  message.place = mailbox.posted++;
  message.posted_nanos = Now();
  (mailbox.first == nullptr ? mailbox.first : mailbox.last->next) = &message;
  mailbox.last = &message;
  if (message.place >= mailbox.asked && to.collectives_posted > message.collective) {
    PoisonMismatch(member, message.signature, to, SlotOf(message.collective).signature);
  }
  Finish(group, i, message.posted_nanos);
  Wake(to);
}

void ThreadGroup::PostDeposit(Lock& lock, Member& member, ThreadCallGroup& group, size_t i) {
  const Call& call = group.calls()[i];
  const int64_t sequence = group.progress_[i].collective;
  ThreadSlot& slot = SlotOf(sequence);
  member.asked.Assign(call);
  if (slot.entered++ == 0) {
    slot.signature.Assign(call);
    slot.first_member = member.index;
  } else if (!slot.signature.Agrees(member.asked)) {
    PoisonMismatch(*members_[slot.first_member], slot.signature, member, member.asked);
    return;
  }
  if (left_count_ > 0) FailIfHopeless(member, group);
  if (!Alive(member)) return;
  ThreadSlot::Deposit& deposit = slot.deposits[member.index];
  lock.unlock();
  FillDeposit(call, member.index, payloads_, deposit);
  lock.lock();
  deposit.posted = true;
  deposit.posted_nanos = Now();
  member.collectives_posted = sequence + 1;
  WakeReceivers();
  if (++slot.posted == static_cast<int>(members_.size())) FillSlot(lock, slot);
  if (call.verb != CallVerb::kBroadcast || call.peer != member.index) return;
  Finish(group, i, deposit.posted_nanos);
  WakeAll();
  FinishSlot(slot);
}

// Every member has left its input, of which this is the last.
void ThreadGroup::FillSlot(Lock& lock, ThreadSlot& slot) {
  slot.full_nanos = Now();
  if (slot.signature.verb == CallVerb::kBroadcast) return;  // waits for its root only
  lock.unlock();
  const RowsMismatch mismatch = FindRowsMismatch(slot);
  if (!mismatch && slot.signature.verb == CallVerb::kAllReduce) SumDeposits(slot);
  lock.lock();
  if (mismatch) {
    PoisonRows(slot, mismatch);
    return;
  }
  slot.full = true;
  WakeAll();
}

bool ThreadGroup::TakeIfReady(Lock& lock, Member& member, ThreadCallGroup& group, size_t i) {
  const Call& call = group.calls()[i];
  if (call.verb == CallVerb::kReceive) return TakeMessage(lock, member, group, i);
  ThreadSlot& slot = SlotOf(group.progress_[i].collective);
  const bool broadcast = call.verb == CallVerb::kBroadcast;
  if (broadcast ? !slot.deposits[call.peer].posted : !slot.full) return false;
  lock.unlock();
  TakeResult(slot, call, member.index);
  lock.lock();
  Finish(group, i, broadcast ? slot.deposits[call.peer].posted_nanos : slot.full_nanos);
  FinishSlot(slot);
  return true;
}

bool ThreadGroup::TakeMessage(Lock& lock, Member& member, ThreadCallGroup& group, size_t i) {
  const Call& call = group.calls()[i];
  const ThreadCallGroup::Progress& progress = group.progress_[i];
  ThreadMailbox& mailbox = Mailbox(member, call.peer);
  ThreadMessage* const message = mailbox.first;
  if (message == nullptr || message->place != progress.place) return false;  // an earlier receive is still open
  member.asked.Assign(call);
  if (!message->signature.Agrees(member.asked) || message->collective != progress.collective) {
    PoisonMismatch(*members_[call.peer], message->signature, member, member.asked);
    return true;
  }
  mailbox.first = message->next;
  lock.unlock();
  CopyRows(message->payload.data(), call.receive);
  message->payload.Release();
  lock.lock();
  Finish(group, i, message->posted_nanos);
  idle_messages_.push_back(message);
  return true;
}

void ThreadGroup::Finish(ThreadCallGroup& group, size_t i, int64_t arrived_nanos) {
  CHECK(!group.progress_[i].done);
  group.progress_[i].done = true;
  --group.open_;
  group.times.arrived = std::max(group.times.arrived, arrived_nanos);
}

void ThreadGroup::FinishSlot(ThreadSlot& slot) {
  ++slot.finished;
  size_t finished = 0;
  const int members = static_cast<int>(members_.size());
  while (finished < open_slots_.size() && open_slots_[finished]->finished == members) {
    ThreadSlot* const idle = open_slots_[finished++];
    for (ThreadSlot::Deposit& deposit : idle->deposits) deposit.payload.Release();
    idle_slots_.push_back(idle);
  }
  open_slots_.erase(open_slots_.begin(), open_slots_.begin() + finished);
  first_open_ += static_cast<int64_t>(finished);
}

ThreadSlot& ThreadGroup::SlotOf(int64_t sequence) {
  CHECK_GE(sequence, first_open_);
  while (sequence - first_open_ >= static_cast<int64_t>(open_slots_.size())) {
    if (idle_slots_.empty()) {
      slots_.push_back(std::make_unique<ThreadSlot>());
      slots_.back()->signature.name.reserve(kUsualNameBytes);
      idle_slots_.reserve(slots_.size());
      open_slots_.reserve(slots_.size());
      idle_slots_.push_back(slots_.back().get());
    }
    ThreadSlot* const slot = idle_slots_.back();
    idle_slots_.pop_back();
    slot->Reset(first_open_ + static_cast<int64_t>(open_slots_.size()), static_cast<int>(members_.size()));
    open_slots_.push_back(slot);
  }
  return *open_slots_[sequence - first_open_];
}

ThreadMailbox& ThreadGroup::Mailbox(Member& receiver, int from) {
  if (receiver.inbox == nullptr) receiver.inbox = std::make_unique<ThreadMailbox[]>(members_.size());
  return receiver.inbox[from];
}

// Its calls may be able to advance. A rank that waits does it itself; of one that computes, a worker does.
void ThreadGroup::Wake(Member& member) {
  if (member.waiting) {
    member.changed.notify_one();
  } else if (member.background > 0 && !member.busy && !member.queued) {
    member.queued = true;
    workers_.Schedule(member);
  }
}

void ThreadGroup::WakeAll() {
  for (const std::unique_ptr<Member>& member : members_) Wake(*member);
}

void ThreadGroup::WakeReceivers() {
  if (waiting_for_messages_ == 0) return;
  for (const std::unique_ptr<Member>& member : members_) {
    if (member->waiting && member->waits_for_message) member->changed.notify_one();
  }
}

}  // namespace shoestring
