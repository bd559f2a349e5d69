// Where the members of a thread group meet: one slot for each collective call, one mailbox for each pair.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/communicator_call.h"
#include "parallel/thread_payload.h"

namespace shoestring {

// A message on its way.
struct ThreadMessage {
  CallSignature signature;
  int64_t collective = 0;  // collectives that its sender had made before
  int64_t place = 0;       // among the messages of its pair
  int64_t posted_nanos = 0;
  Payload payload;
  ThreadMessage* next = nullptr;
};

// The messages of one pair that were not received yet, oldest first.
struct ThreadMailbox {
  ThreadMessage* first = nullptr;
  ThreadMessage* last = nullptr;
  int64_t posted = 0;  // messages so far
  int64_t asked = 0;   // receives so far
};

// One collective call. Every member leaves a copy of its input; a member takes what it needs when it is there. Deposits
// are not written once `full` (or, of a broadcast, once the root's is posted), until all members have finished.
struct ThreadSlot {
  struct Deposit {
    int64_t rows = 0;
    std::vector<int64_t> send_offsets;     // of all_to_all_v
    std::vector<int64_t> receive_offsets;  // of all_to_all_v and all_gather_v
    Payload payload;
    bool posted = false;
    int64_t posted_nanos = 0;
  };

  int64_t sequence = 0;
  CallSignature signature;  // of the member that entered first
  int first_member = 0;
  int entered = 0;
  int posted = 0;
  int finished = 0;
  bool full = false;  // every member has posted, and a sum is made
  int64_t full_nanos = 0;
  std::vector<Deposit> deposits;

  // For its next call; keeps memory.
  void Reset(int64_t new_sequence, int members);
};

// Copies between a view and a payload, in which rows stand back to back.
void CopyRows(ConstView from, std::byte* to);
void CopyRows(const std::byte* from, View to);

// What member `index` leaves: a copy of its input and its offsets.
void FillDeposit(const Call& call, int index, PayloadPool& pool, ThreadSlot::Deposit& deposit);
// Of a slot with all deposits: OK, or who sends what to whom, which expects something else ("member 1 sends ..."), with
// two places for names: `from` and `to` are the two members.
struct RowsMismatch {
  int from = -1;
  int to = -1;
  int64_t sent = 0;
  int64_t expected = 0;
  explicit operator bool() const { return from >= 0; }
};
RowsMismatch FindRowsMismatch(const ThreadSlot& slot);
// The sum over the deposits of an all_reduce, made in the first of them.
void SumDeposits(ThreadSlot& slot);
// What member `index` takes.
void TakeResult(const ThreadSlot& slot, const Call& call, int index);

}  // namespace shoestring
