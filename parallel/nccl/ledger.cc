// Deadlines and messages of NCCL calls.
#include "parallel/nccl/ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace shoestring {
void NcclCall::SetName(absl::string_view text) {
  const size_t length = std::min(text.size(), name.size() - 1);
  std::copy_n(text.data(), length, name.data());
  name[length] = '\0';
}

void NcclCall::AddPeer(int member) {
  const int known = std::min(peer_count, kPeers);
  if (std::find(peers.begin(), peers.begin() + known, member) != peers.begin() + known) return;
  if (peer_count < kPeers) peers[peer_count] = member;
  ++peer_count;
}

std::string NcclWho::ToString() const {
  return absl::StrCat("rank ", ranks[index], ", member ", index, " of ", ranks.size(), " of group '", group, "'");
}

absl::string_view NcclResultText(NcclResult result) {
  switch (result) {
    case NcclResult::kSuccess: return "no error";
    case NcclResult::kCudaError: return "a CUDA call inside NCCL failed";
    case NcclResult::kSystemError: return "a system call failed; a peer or the network is gone";
    case NcclResult::kInternalError: return "internal error of NCCL";
    case NcclResult::kInvalidArgument: return "invalid argument";
    case NcclResult::kInvalidUsage: return "invalid use of NCCL";
    case NcclResult::kRemoteError: return "a peer failed or is gone";
    case NcclResult::kInProgress: return "still in progress";
  }
  return "unknown result";
}

absl::StatusCode NcclResultCode(NcclResult result) {
  switch (result) {
    case NcclResult::kSuccess: return absl::StatusCode::kOk;
    case NcclResult::kSystemError:
    case NcclResult::kRemoteError: return absl::StatusCode::kUnavailable;
    case NcclResult::kInProgress: return absl::StatusCode::kDeadlineExceeded;
    default: return absl::StatusCode::kInternal;
  }
}

NcclLedger::NcclLedger(NcclWho who, int slots) : who_(std::move(who)) {
  CHECK_GE(who_.index, 0);
  CHECK_LT(who_.index, static_cast<int>(who_.ranks.size()));
  calls_.reserve(slots);
}

NcclCall& NcclLedger::Begin(absl::string_view verb, absl::string_view name, double now_s, double timeout_s) {
  CHECK_LT(calls_.size(), calls_.capacity());
  NcclCall& call = calls_.emplace_back();
  call.verb = verb;
  call.SetName(name);
  call.sequence = next_sequence_++;
  call.began_s = now_s;
  call.timeout_s = timeout_s;
  return call;
}

void NcclLedger::DropNewest() {
  CHECK(!calls_.empty());
  calls_.pop_back();
}

int NcclLedger::Reap(absl::FunctionRef<bool(int event)> done) {
  const auto gone = std::remove_if(calls_.begin(), calls_.end(),
                                   [&](const NcclCall& call) { return call.event >= 0 && done(call.event); });
  const int count = static_cast<int>(calls_.end() - gone);
  calls_.erase(gone, calls_.end());
  return count;
}

std::string NcclLedger::Describe(const NcclCall& call) const {
  std::string text =
      absl::StrCat(who_.ToString(), ": ", call.verb, " '", call.name.data(), "' (call ", call.sequence, ")");
  if (call.all_members) {
    absl::StrAppend(&text, " with all members");
  } else if (call.peer_count > 0) {
    absl::StrAppend(&text, " with rank", call.peer_count > 1 ? "s" : "");
    for (int i = 0; i < std::min(call.peer_count, NcclCall::kPeers); ++i) {
      absl::StrAppend(&text, i > 0 ? ", " : " ", who_.ranks[call.peers[i]]);
    }
    if (call.peer_count > NcclCall::kPeers) absl::StrAppend(&text, " and more");
  }
  return text;
}

std::optional<absl::Status> NcclLedger::Judge(double now_s, NcclResult state, absl::string_view last_error) const {
  // Completed calls have been reaped, so the oldest one left is the likeliest culprit of an error that NCCL reports
  // without saying of what.
  if (state != NcclResult::kSuccess && state != NcclResult::kInProgress) {
    return absl::Status(NcclResultCode(state),
                        absl::StrCat(calls_.empty() ? who_.ToString() : Describe(calls_.front()), ": ",
                                     NcclResultText(state), last_error.empty() ? "" : ": ", last_error));
  }
  const NcclCall* latest = nullptr;
  for (const NcclCall& call : calls_) {
    if (now_s < call.began_s + call.timeout_s) continue;
    if (latest == nullptr || call.began_s + call.timeout_s < latest->began_s + latest->timeout_s) latest = &call;
  }
  if (latest == nullptr) return std::nullopt;
  return absl::DeadlineExceededError(absl::StrCat(Describe(*latest), ": not complete after ", latest->timeout_s, " s",
                                                  latest->event < 0 ? ", not even enqueued" : "", "; ",
                                                  calls_.size() - 1, " other calls under way"));
}

absl::Status NcclLedger::Failed(NcclResult result, absl::string_view last_error) const {
  CHECK(!calls_.empty());
  return absl::Status(NcclResultCode(result), absl::StrCat(Describe(calls_.back()), ": ", NcclResultText(result),
                                                           last_error.empty() ? "" : ": ", last_error));
}

std::optional<double> NcclLedger::NextDeadline() const {
  std::optional<double> next;
  for (const NcclCall& call : calls_) {
    const double deadline_s = call.began_s + call.timeout_s;
    if (!next || deadline_s < *next) next = deadline_s;
  }
  return next;
}

}  // namespace shoestring
