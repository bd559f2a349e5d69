// Names and digests of a state.
#include "trainer/checkpoint/snapshot.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "trainer/checkpoint/safetensors.h"

namespace shoestring {

const char* Name(StateKind kind) {
  switch (kind) {
    case StateKind::kWeights: return "weights";
    case StateKind::kExpAvg: return "exp_avg";
    case StateKind::kExpAvgSq: return "exp_avg_sq";
    case StateKind::kEma: return "ema";
    case StateKind::kBias: return "bias";
  }
  return "?";
}

std::string StoredName(StateKind kind, absl::string_view name) { return absl::StrCat(Name(kind), ".", name); }

absl::string_view BytesOf(const StateTensor& tensor) {
  CHECK(tensor.view.contiguous());
  int64_t elements = 1;
  for (const int64_t dimension : tensor.shape) elements *= dimension;
  CHECK_GT(elements, 0);
  CHECK_EQ(elements, tensor.view.elements());
  return {reinterpret_cast<const char*>(tensor.view.data), static_cast<size_t>(tensor.view.bytes())};
}

std::vector<size_t> CanonicalOrder(const std::vector<StateTensor>& tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::tie(tensors[a].kind, tensors[a].name) < std::tie(tensors[b].kind, tensors[b].name);
  });
  return order;
}

void TensorDigester::Update(absl::string_view bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), static_cast<size_t>(block_bytes_ - in_block_));
    sha_.Update(bytes.substr(0, count));
    bytes.remove_prefix(count);
    in_block_ += static_cast<int64_t>(count);
    if (in_block_ < block_bytes_) continue;
    absl::StrAppend(&sums_, " ", absl::BytesToHexString(sha_.Finish()));
    in_block_ = 0;
  }
}

std::string TensorDigester::Finish() {
  if (in_block_ > 0) absl::StrAppend(&sums_, " ", absl::BytesToHexString(sha_.Finish()));
  return std::move(sums_);
}

void StateDigester::AddTensor(StateKind kind, absl::string_view name, absl::string_view dtype, absl::string_view shape,
                              absl::string_view sums) {
  sha_.Update(absl::StrCat("tensor ", Name(kind), " ", name, " ", dtype, " [", shape, "]", sums, "\n"));
}

std::string StateDigester::Finish(const checkpoint::SnapshotHeader& header) {
  sha_.Update(absl::StrCat("position ", header.step(), " ", header.consumed_tokens(), " ", header.phase(), " ",
                           header.phase_step(), " ", header.phase_tokens(), " ", header.phase_sequences(), "\n"));
  return sha_.Finish();
}

std::string StateDigest(const Snapshot& snapshot) {
  StateDigester state;
  for (const size_t i : CanonicalOrder(snapshot.tensors)) {
    const StateTensor& tensor = snapshot.tensors[i];
    TensorDigester digester(SizeOf(tensor.view.dtype));
    digester.Update(BytesOf(tensor));
    state.AddTensor(tensor.kind, tensor.name, SafetensorsName(tensor.view.dtype), absl::StrJoin(tensor.shape, ","),
                    digester.Finish());
  }
  return absl::BytesToHexString(state.Finish(snapshot.header));
}

}  // namespace shoestring
