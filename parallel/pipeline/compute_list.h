// How builders write what a position computes: they say which chunk is next, micro-batches number themselves.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <tuple>
#include <vector>

#include "parallel/pipeline/program.h"

namespace shoestring {

// A stage in one direction.
struct Chunk {
  StageId stage;
  Direction direction;
  friend bool operator<(const Chunk& a, const Chunk& b) {
    return std::tie(a.stage, a.direction) < std::tie(b.stage, b.direction);
  }
};

// Appends compute actions to the list of one position. In every chunk forwards, backwards and weight gradients each run
// through the micro-batches 0, 1, 2, ...
class ComputeList {
 public:
  // `actions` must outlive this object.
  explicit ComputeList(std::vector<Action>& actions) : actions_(actions) {}

  void Forward(Chunk chunk);
  void Backward(Chunk chunk);
  // Its weight gradient waits until one of the two below asks for it.
  void BackwardInput(Chunk chunk);
  void OldestWeights();             // of all chunks, the one that has waited longest
  void OldestWeights(Chunk chunk);  // of this chunk
  void Overlapped(Chunk forward, Chunk backward);

  int64_t forwards(Chunk chunk) const { return Count(forwards_, chunk); }
  int64_t backwards(Chunk chunk) const { return Count(backwards_, chunk); }
  bool weights_wait() const { return !waiting_.empty(); }

 private:
  static int64_t Count(const std::map<Chunk, int64_t>& counts, Chunk chunk);
  static Work Next(std::map<Chunk, int64_t>& counts, Chunk chunk);

  std::vector<Action>& actions_;
  std::map<Chunk, int64_t> forwards_, backwards_;  // begun so far
  std::deque<Work> waiting_;                       // weight gradients, oldest first
};

}  // namespace shoestring
