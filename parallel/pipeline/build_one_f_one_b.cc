// Warm-up, steady state, drain; sends and receives stand beside the work that makes and needs them.
#include "parallel/pipeline/build_one_f_one_b.h"

#include <algorithm>

#include "base/check.h"

namespace shoestring {
namespace {

class Builder {
 public:
  Builder(int position, int positions, std::vector<Action>& actions)
      : position_(position), last_(positions - 1), actions_(actions) {}

  void Forward(int64_t micro_batch) {
    if (position_ > 0) Emit(ActionKind::kReceiveForward, micro_batch, position_ - 1);
    Emit(ActionKind::kForward, micro_batch);
    if (position_ < last_) Emit(ActionKind::kSendForward, micro_batch, position_ + 1);
  }
  void Backward(int64_t micro_batch) {
    if (position_ < last_) Emit(ActionKind::kReceiveBackward, micro_batch, position_ + 1);
    Emit(ActionKind::kBackward, micro_batch);
    if (position_ > 0) Emit(ActionKind::kSendBackward, micro_batch, position_ - 1);
  }
  void Reduce() { Emit(ActionKind::kReduce, 0); }

 private:
  void Emit(ActionKind kind, int64_t micro_batch, int peer = -1) {
    actions_.push_back({kind, {StageId(position_), micro_batch, Direction(0)}, {}, peer});
  }

  const int position_;
  const int last_;
  std::vector<Action>& actions_;
};

}  // namespace

Program BuildOneFOneB(int positions, int64_t micro_batches) {
  CHECK_GE(positions, 1);
  CHECK_GE(micro_batches, 1);
  Program program;
  program.positions.resize(positions);
  for (int p = 0; p < positions; ++p) {
    Builder builder(p, positions, program.positions[p]);
    const int64_t warm_up = std::min<int64_t>(positions - 1 - p, micro_batches);
    for (int64_t m = 0; m < warm_up; ++m) builder.Forward(m);
    for (int64_t m = warm_up; m < micro_batches; ++m) {
      builder.Forward(m);
      builder.Backward(m - warm_up);
    }
    for (int64_t m = micro_batches - warm_up; m < micro_batches; ++m) builder.Backward(m);
    builder.Reduce();
  }
  return program;
}

}  // namespace shoestring
