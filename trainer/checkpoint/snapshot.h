// The state of a run at one step, as a checkpoint sees it: named tensors in host memory, and a header.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/tensor.h"
#include "trainer/checkpoint/digest.h"
#include "trainer/checkpoint/manifest.pb.h"

namespace shoestring {

// In the order of a manifest.
enum class StateKind { kWeights = 1, kExpAvg = 2, kExpAvgSq = 3, kEma = 4, kBias = 5 };

inline constexpr StateKind kAllStateKinds[] = {StateKind::kWeights, StateKind::kExpAvg, StateKind::kExpAvgSq,
                                               StateKind::kEma, StateKind::kBias};

const char* Name(StateKind kind);  // "weights", "exp_avg", "exp_avg_sq", "ema", "bias"

// One tensor of the state. Owns nothing. No dimension is 0.
struct StateTensor {
  StateKind kind = StateKind::kWeights;
  std::string name;            // in the parameter table; of A-Z a-z 0-9 . _ -
  std::vector<int64_t> shape;  // [stack, rows, cols], [rows, cols] or [cols]
  View view;                   // contiguous, as many elements as the shape has
};

struct Snapshot {
  checkpoint::SnapshotHeader header;
  std::vector<StateTensor> tensors;  // in any order; kind and name are unique together
};

// "weights.model.norm.weight": the name in a shard.
std::string StoredName(StateKind kind, absl::string_view name);
inline std::string StoredName(const StateTensor& tensor) { return StoredName(tensor.kind, tensor.name); }

// The bytes of a tensor; the view must be contiguous.
absl::string_view BytesOf(const StateTensor& tensor);

// Indices of the tensors in the order (kind, name), in which manifests and digests list them.
std::vector<size_t> CanonicalOrder(const std::vector<StateTensor>& tensors);

// A block of a state's digest, in elements: what one rank can always hash alone (NUMERICS, order of sums, rule 5).
inline constexpr int64_t kDigestBlockElements = int64_t{1} << 20;

// SHA-256 of each digest block of one tensor, whose bytes come in order and in pieces.
class TensorDigester {
 public:
  explicit TensorDigester(int64_t element_bytes) : block_bytes_(kDigestBlockElements * element_bytes) {}
  void Update(absl::string_view bytes);
  // In hexadecimal, each after a space. Call once.
  std::string Finish();

 private:
  Sha256 sha_;
  const int64_t block_bytes_;
  int64_t in_block_ = 0;
  std::string sums_;
};

// Lines that make up the digest of a state (docs/formats/checkpoint.md).
class StateDigester {
 public:
  // In canonical order. `sums` is what a TensorDigester gave.
  void AddTensor(StateKind kind, absl::string_view name, absl::string_view dtype, absl::string_view shape,
                 absl::string_view sums);
  // Adds the position in the data; 32 bytes.
  std::string Finish(const checkpoint::SnapshotHeader& header);

 private:
  Sha256 sha_;
};

// The SHA-256 of weights, moments, averages, biases and data position, in hexadecimal. Equal for equal states, whatever
// their layout; different for any bit that differs.
std::string StateDigest(const Snapshot& snapshot);

}  // namespace shoestring
