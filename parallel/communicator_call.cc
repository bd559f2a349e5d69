// Names, agreement and text of calls; sums of counters.
#include "parallel/communicator_call.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace shoestring {

const char* Name(CallVerb verb) {
  switch (verb) {
    case CallVerb::kAllToAllV: return "all_to_all_v";
    case CallVerb::kAllGatherV: return "all_gather_v";
    case CallVerb::kReduceScatter: return "reduce_scatter";
    case CallVerb::kAllReduce: return "all_reduce";
    case CallVerb::kBroadcast: return "broadcast";
    case CallVerb::kSend: return "send";
    case CallVerb::kReceive: return "receive";
  }
  CHECK(false);
  return "";
}

void CallSignature::Assign(const Call& call) {
  verb = call.verb;
  name.assign(call.name);
  const ConstView shape = call.shape();
  dtype = shape.dtype;
  rows = verb == CallVerb::kAllToAllV || verb == CallVerb::kAllGatherV ? -1 : shape.rows;
  cols = shape.cols;
  peer = call.peer;
}

bool CallSignature::Agrees(const CallSignature& other) const {
  const bool same_verb =
      verb == CallVerb::kSend ? other.verb == CallVerb::kReceive : verb == other.verb && peer == other.peer;
  return same_verb && name == other.name && dtype == other.dtype && rows == other.rows && cols == other.cols;
}

std::string CallSignature::ToString() const {
  std::string text = absl::StrCat(Name(verb), " '", name, "' ", shoestring::Name(dtype), " [");
  absl::StrAppend(&text, rows < 0 ? "any" : absl::StrCat(rows), ", ", cols, "]");
  if (peer >= 0) absl::StrAppend(&text, verb == CallVerb::kSend ? " to" : " from", " member ", peer);
  return text;
}

VerbCounters CommunicationCounters::Total() const {
  VerbCounters total;
  for (const VerbCounters& verb : verbs) {
    total.calls += verb.calls;
    total.messages_sent += verb.messages_sent;
    total.bytes_sent += verb.bytes_sent;
    total.messages_received += verb.messages_received;
    total.bytes_received += verb.bytes_received;
  }
  return total;
}

}  // namespace shoestring
