// What a rank did in a step and when: actions of its program, pieces of overlapped ones, calls to other ranks
// (docs/formats/trace.md).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "parallel/communicator.h"
#include "parallel/pipeline/program.h"
#include "trainer/rank_links.h"

namespace shoestring {

// Times are nanoseconds of Clock::MonotonicNanos.
struct TracedInterval {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t length() const { return end - begin; }
};
struct TracedAction {
  Action action;
  TracedInterval time;
};
// A piece of a forward or of a gradient of inputs.
struct TracedPiece {
  bool forward = true;
  TracedInterval time;
};
// Which of a rank's communicators a call went over.
enum class Link { kWorld, kForward, kBackward, kReplicas, kExperts, kExpertReplicas, kEnds };
constexpr int kLinks = 7;
const char* Name(Link link);  // "experts"

struct TracedCall {
  Link link = Link::kWorld;
  char name[28] = {};  // as the call is named, cut where it is longer
  CallTimes times;
  // What nothing hid, and how long it took in all.
  int64_t exposed() const { return times.wait_ended - times.wait_began; }
  int64_t in_flight() const { return times.wait_ended - times.started; }
};

// Where the time of a step went, in seconds.
struct StepShares {
  double step_s = 0;             // from the first action to the end of the last
  double compute_s = 0;          // in actions that compute, without what they wait for
  double bubble_s = 0;           // in receives: for other positions
  double exposed_s = 0;          // waiting for calls inside actions that compute, and for sums of gradients
  double exchange_s = 0;         // in flight between ranks that share experts
  double exchange_hidden_s = 0;  // the part of it that nobody waited for
};

// Records one step at a time. Takes its memory when it is made; events beyond that are counted, not kept.
class StepTrace {
 public:
  explicit StepTrace(Clock& clock, int64_t max_events = 1 << 15);
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  // Listens to a rank's communicators, which must outlive the trace.
  void Listen(const RankLinks& links);

  void BeginStep();
  void BeginAction() { action_began_ = clock_.MonotonicNanos(); }
  void EndAction(const Action& action);
  void BeginPiece() { piece_began_ = clock_.MonotonicNanos(); }
  void EndPiece(bool forward);

  const std::vector<TracedAction>& actions() const { return actions_; }
  const std::vector<TracedPiece>& pieces() const { return pieces_; }
  const std::vector<TracedCall>& calls() const { return calls_; }
  int64_t dropped() const { return dropped_; }
  StepShares Shares() const;

 private:
  struct Ear final : Communicator::Listener {
    void Completed(absl::string_view name, const CallTimes& times) override;
    StepTrace* trace = nullptr;
    Link link = Link::kWorld;
    Communicator* communicator = nullptr;
  };
  template <typename T>
  void Keep(std::vector<T>& events, const T& event);

  Clock& clock_;
  Ear ears_[kLinks];
  std::vector<TracedAction> actions_;
  std::vector<TracedPiece> pieces_;
  std::vector<TracedCall> calls_;
  int64_t action_began_ = 0;
  int64_t piece_began_ = 0;
  int64_t dropped_ = 0;
};

}  // namespace shoestring
