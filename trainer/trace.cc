// Recording, and adding up.
#include "trainer/trace.h"

#include <algorithm>

namespace shoestring {
namespace {

constexpr double kNano = 1e-9;

bool Computes(ActionKind kind) { return !IsSend(kind) && !IsReceive(kind) && kind != ActionKind::kReduce; }

bool IsExchange(const TracedCall& call) { return call.link == Link::kExperts; }

}  // namespace

const char* Name(Link link) {
  switch (link) {
    case Link::kWorld: return "world";
    case Link::kForward: return "forward";
    case Link::kBackward: return "backward";
    case Link::kReplicas: return "replicas";
    case Link::kExperts: return "experts";
    case Link::kExpertReplicas: return "expert replicas";
    case Link::kEnds: return "ends";
  }
  return "";
}

StepTrace::StepTrace(Clock& clock, int64_t max_events) : clock_(clock) {
  actions_.reserve(max_events);
  pieces_.reserve(max_events);
  calls_.reserve(max_events);
}

StepTrace::~StepTrace() {
  for (const Ear& ear : ears_) {
    if (ear.communicator != nullptr) ear.communicator->SetListener(nullptr);
  }
}

void StepTrace::Listen(const RankLinks& links) {
  Communicator* const communicators[kLinks] = {links.world.get(),    links.forward.get(), links.backward.get(),
                                               links.replicas.get(), links.experts.get(), links.expert_replicas.get(),
                                               links.ends.get()};
  for (int i = 0; i < kLinks; ++i) {
    if (communicators[i] == nullptr) continue;
    ears_[i].trace = this;
    ears_[i].link = static_cast<Link>(i);
    ears_[i].communicator = communicators[i];
    communicators[i]->SetListener(&ears_[i]);
  }
}

template <typename T>
void StepTrace::Keep(std::vector<T>& events, const T& event) {
  if (events.size() == events.capacity()) {
    ++dropped_;
  } else {
    events.push_back(event);
  }
}

void StepTrace::BeginStep() {
  actions_.clear();
  pieces_.clear();
  calls_.clear();
  dropped_ = 0;
}

void StepTrace::EndAction(const Action& action) { Keep(actions_, {action, {action_began_, clock_.MonotonicNanos()}}); }

void StepTrace::EndPiece(bool forward) { Keep(pieces_, {forward, {piece_began_, clock_.MonotonicNanos()}}); }

void StepTrace::Ear::Completed(absl::string_view name, const CallTimes& times) {
  TracedCall call{link, {}, times};
  name.copy(call.name, sizeof(call.name) - 1);
  trace->Keep(trace->calls_, call);
}

// Calls of the step's actions lie inside them; sums of gradients come after.
StepShares StepTrace::Shares() const {
  StepShares shares;
  if (actions_.empty()) return shares;
  int64_t end = actions_.back().time.end;
  for (const TracedCall& call : calls_) end = std::max(end, call.times.wait_ended);
  shares.step_s = kNano * static_cast<double>(end - actions_.front().time.begin);
  for (const TracedAction& traced : actions_) {
    const double length_s = kNano * static_cast<double>(traced.time.length());
    if (Computes(traced.action.kind)) shares.compute_s += length_s;
    if (IsReceive(traced.action.kind)) shares.bubble_s += length_s;
  }
  for (const TracedCall& call : calls_) {
    if (call.link == Link::kForward || call.link == Link::kBackward) continue;
    const double exposed_s = kNano * static_cast<double>(call.exposed());
    const double in_flight_s = kNano * static_cast<double>(call.in_flight());
    shares.exposed_s += exposed_s;
    if (!IsExchange(call)) continue;
    shares.compute_s -= exposed_s;
    shares.exchange_s += in_flight_s;
    shares.exchange_hidden_s += in_flight_s - exposed_s;
  }
  return shares;
}

}  // namespace shoestring
