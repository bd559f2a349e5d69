// A state of a few kilobytes with every kind of tensor, for tests.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "trainer/checkpoint/snapshot.h"

namespace shoestring {

// A snapshot that owns its memory. Movable: views point into heap blocks, which stay where they are.
class SmallState {
 public:
  // Contents are a function of (step, seed).
  explicit SmallState(int64_t step, uint64_t seed = 1) : rng_(seed, RngPurpose::kInit, static_cast<uint64_t>(step)) {
    checkpoint::SnapshotHeader& header = snapshot.header;
    header.set_step(step);
    header.set_phase_sequences(step * 16);
    header.set_consumed_tokens(step * 4096);
    header.set_run_hash("run");
    header.set_numerics_hash("numerics");
    header.set_layout("one rank");
    for (const StateKind kind : {StateKind::kWeights, StateKind::kExpAvg, StateKind::kExpAvgSq, StateKind::kEma}) {
      const bool moment = kind == StateKind::kExpAvg || kind == StateKind::kExpAvgSq;
      const DType dtype = moment ? DType::kBF16 : DType::kF32;
      Add(kind, "model.layers.1.mlp.experts.down_proj", {2, 3, 5}, dtype);
      Add(kind, "lm_head.weight", {4, 3}, dtype);
      Add(kind, "model.norm.weight", {7}, dtype);
    }
    Add(StateKind::kBias, "model.layers.1.mlp.gate.e_score_correction_bias", {2}, DType::kF32);
  }

  void Add(StateKind kind, std::string name, std::vector<int64_t> shape, DType dtype) {
    int64_t elements = 1;
    for (const int64_t dimension : shape) elements *= dimension;
    std::vector<std::byte>& bytes = storage_.emplace_back(static_cast<size_t>(elements * SizeOf(dtype)));
    for (size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::byte>(rng_.Uniform(storage_.size() * 65536 + i) * 256);
    }
    const int64_t cols = shape.back();
    const View view(bytes.data(), dtype, elements / cols, cols);
    snapshot.tensors.push_back({kind, std::move(name), std::move(shape), view});
  }

  void Clear() {
    for (std::vector<std::byte>& bytes : storage_) std::fill(bytes.begin(), bytes.end(), std::byte{0});
  }
  std::string Digest() const { return StateDigest(snapshot); }

  Snapshot snapshot;

 private:
  Rng rng_;
  std::vector<std::vector<std::byte>> storage_;
};

}  // namespace shoestring
