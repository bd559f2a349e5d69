// Counters of micro-batches and the queue of weight gradients.
#include "parallel/pipeline/compute_list.h"

#include <algorithm>

#include "base/check.h"

namespace shoestring {

int64_t ComputeList::Count(const std::map<Chunk, int64_t>& counts, Chunk chunk) {
  const auto it = counts.find(chunk);
  return it == counts.end() ? 0 : it->second;
}

Work ComputeList::Next(std::map<Chunk, int64_t>& counts, Chunk chunk) {
  return {chunk.stage, counts[chunk]++, chunk.direction};
}

void ComputeList::Forward(Chunk chunk) { actions_.push_back({ActionKind::kForward, Next(forwards_, chunk), {}, -1}); }

void ComputeList::Backward(Chunk chunk) {
  actions_.push_back({ActionKind::kBackward, Next(backwards_, chunk), {}, -1});
}

void ComputeList::BackwardInput(Chunk chunk) {
  waiting_.push_back(Next(backwards_, chunk));
  actions_.push_back({ActionKind::kBackwardInput, waiting_.back(), {}, -1});
}

void ComputeList::OldestWeights() {
  CHECK(weights_wait());
  actions_.push_back({ActionKind::kBackwardWeight, waiting_.front(), {}, -1});
  waiting_.pop_front();
}

void ComputeList::OldestWeights(Chunk chunk) {
  const auto it = std::find_if(waiting_.begin(), waiting_.end(), [&](const Work& work) {
    return work.stage == chunk.stage && work.direction == chunk.direction;
  });
  CHECK(it != waiting_.end());
  actions_.push_back({ActionKind::kBackwardWeight, *it, {}, -1});
  waiting_.erase(it);
}

void ComputeList::Overlapped(Chunk forward, Chunk backward) {
  const Work work = Next(forwards_, forward);
  actions_.push_back({ActionKind::kOverlapped, work, Next(backwards_, backward), -1});
}

}  // namespace shoestring
