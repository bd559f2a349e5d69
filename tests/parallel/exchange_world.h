// A group of thread ranks that exchange tokens, beside one rank that holds all experts and computes the same.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/rng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "parallel/exchange_geometry.h"
#include "parallel/local_exchange.h"
#include "parallel/make_exchange.h"
#include "parallel/thread_communicator.h"
#include "tests/kernels/test_tensor.h"

namespace shoestring {

enum class Routing { kRandom, kOneExpert, kRankWithout, kOneNode };

struct ExchangeCase {
  int ranks = 2;
  int node_ranks = 1;
  bool two_hop = false;
  int64_t tokens = 13;  // of a lane, at most: odd lanes have one less
  int64_t chosen = 3;
  int64_t experts = 8;
  int64_t groups = 4;
  DType act = DType::kF32;
  bool fp8 = false;
  double buffer_factor = 2;
  Routing routing = Routing::kRandom;
  int64_t hidden = 72;

  int64_t lane_tokens(int lane) const { return tokens - lane % 2; }
  int64_t first_token(int lane) const { return lane * tokens - lane / 2; }
  int64_t all_tokens() const { return first_token(ranks); }
  int64_t local_experts() const { return experts / ranks; }
  Tile tile() const { return fp8 ? Tile{1, 32} : Tile{}; }
  DType sent() const { return fp8 ? DType::kE4M3 : act; }
  ExchangeShape shape(int64_t of_tokens) const { return {of_tokens, chosen, experts, experts / groups}; }
  std::string ToString() const {
    return absl::StrCat(ranks, " ranks of ", node_ranks, two_hop ? " two hops" : " direct", ", ", tokens, " tokens, ",
                        chosen, " of ", experts, " in ", groups, ", ", Name(act), fp8 ? " fp8" : "", ", factor ",
                        buffer_factor, ", routing ", static_cast<int>(routing));
  }
};

// A matrix as it travels: with scales if the case says FP8.
struct SentTensor {
  SentTensor(const ExchangeCase& c, int64_t rows)
      : values(c.sent(), rows, c.hidden),
        scales(DType::kF32, rows, c.fp8 ? ScaleColumns(c.tile(), c.hidden) : 1),
        tile(c.tile()),
        fp8(c.fp8) {}
  // Any bits will do where codes are only moved.
  void Random(uint64_t seed) {
    if (!fp8) {
      values.Random(seed);
      return;
    }
    const Rng rng(seed, RngPurpose::kTest, 3);
    const View bytes = values.view();
    for (int64_t i = 0; i < bytes.bytes(); ++i) bytes.data[i] = static_cast<std::byte>(rng.Bits64(i) & 0x7e);
    scales.Random(seed + 1);
  }
  MutableOperand operand(int64_t first, int64_t count) const {
    if (!fp8) return values.view().Rows(first, count);
    return {values.view().Rows(first, count), scales.view().Rows(first, count), tile};
  }
  TestTensor values, scales;
  Tile tile;
  bool fp8;
};

// What one micro-batch of every lane is made of, and what one rank makes of it.
struct WholeBatch {
  WholeBatch(const ExchangeCase& c, uint64_t seed)
      : experts(DType::kI32, c.all_tokens(), c.chosen),
        weights(DType::kF32, c.all_tokens(), c.chosen),
        x(c, c.all_tokens()),
        base(c.act, c.all_tokens(), c.hidden),
        results(c.act, c.all_tokens() * c.chosen, c.hidden),
        d_out(c, c.all_tokens()),
        d_rows(c.act, c.all_tokens() * c.chosen, c.hidden),
        d_row_weight(DType::kF32, 1, c.all_tokens() * c.chosen),
        offsets(c.experts + 1),
        rows(c, c.all_tokens() * c.chosen),
        row_weight(DType::kF32, 1, c.all_tokens() * c.chosen),
        out(c.act, c.all_tokens(), c.hidden),
        d_results(c, c.all_tokens() * c.chosen),
        d_weights(DType::kF32, c.all_tokens(), c.chosen),
        dx(c.act, c.all_tokens(), c.hidden) {
    Choose(c, seed);
    weights.Random(seed + 1);
    x.Random(seed + 2);
    base.Random(seed + 4);
    results.Random(seed + 5);
    d_out.Random(seed + 6);
    d_rows.Random(seed + 8);
    d_row_weight.Random(seed + 9);
    ComputeOnOneRank(c);
  }

  // Distinct experts, ascending, out of those that the routing leaves a token.
  void Choose(const ExchangeCase& c, uint64_t seed) {
    const Rng rng(seed, RngPurpose::kTest, 1);
    for (int64_t t = 0; t < c.all_tokens(); ++t) {
      std::vector<std::pair<uint64_t, int64_t>> order;
      for (int64_t e = 0; e < c.experts; ++e) {
        if (c.routing == Routing::kRankWithout && e / c.local_experts() == 1) continue;
        const int64_t node = e / (c.local_experts() * c.node_ranks);
        if (c.routing == Routing::kOneNode && node != t % (c.ranks / c.node_ranks)) continue;
        const bool first = c.routing == Routing::kOneExpert && e < c.chosen;
        order.emplace_back(first ? e : rng.Bits64(t * c.experts + e) | 1u << 20, e);
      }
      std::sort(order.begin(), order.end());
      std::vector<int64_t> chosen;
      for (int64_t k = 0; k < c.chosen; ++k) chosen.push_back(order[k].second);
      std::sort(chosen.begin(), chosen.end());
      for (int64_t k = 0; k < c.chosen; ++k) experts.set(t, k, static_cast<double>(chosen[k]));
    }
  }

  void ComputeOnOneRank(const ExchangeCase& c) {
    const std::unique_ptr<Backend> backend = MakeCpuBackend({});
    const std::unique_ptr<Stream> stream = backend->MakeStream();
    const std::unique_ptr<ExpertExchange> local = MakeLocalExchange(c.shape(c.all_tokens()));
    std::vector<std::byte> memory(1 << 22);
    Arena arena(memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64), memory.size() - 64);
    const auto plan = local->AllocatePlan(arena);
    const int64_t all = c.all_tokens();
    local->BeginDispatch(*backend, *stream, *plan,
                         {x.operand(0, all), experts, weights, rows.operand(0, all * c.chosen), row_weight});
    local->AwaitDispatch(*backend, *stream, *plan);
    local->BeginCombine(*backend, *stream, *plan, results);
    local->AwaitCombine(*backend, *stream, *plan, base, out);
    local->BeginCombineBackward(*backend, *stream, *plan, d_out.operand(0, all), d_results.operand(0, all * c.chosen));
    local->AwaitCombineBackward(*backend, *stream, *plan);
    local->BeginDispatchBackward(*backend, *stream, *plan, d_rows, d_row_weight);
    local->AwaitWeightGradients(*backend, *stream, *plan, d_weights);
    local->AwaitDispatchBackward(*backend, *stream, *plan, base, dx);
    for (int64_t e = 0; e <= c.experts; ++e) offsets[e] = local->segments(*plan).offsets.as<int32_t>()[e];
  }

  TestTensor experts, weights;
  SentTensor x;
  TestTensor base, results;
  SentTensor d_out;
  TestTensor d_rows, d_row_weight;
  std::vector<int32_t> offsets;
  SentTensor rows;
  TestTensor row_weight, out;
  SentTensor d_results;
  TestTensor d_weights, dx;
};

inline void ExpectSameRows(ConstView got, int64_t got_first, ConstView want, int64_t want_first, int64_t count,
                           const std::string& what) {
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(std::memcmp(got.row_bytes(got_first + i), want.row_bytes(want_first + i), BytesOf(got.dtype, got.cols)),
              0)
        << what << ", row " << i << " of " << count;
  }
}

// One rank's side of a micro-batch.
class RankBatch {
 public:
  RankBatch(const ExchangeCase& c, const WholeBatch& whole, int rank, const ExpertExchange& exchange, Arena& arena)
      : c_(c),
        whole_(whole),
        exchange_(exchange),
        plan_(exchange.AllocatePlan(arena)),
        tokens_(c.lane_tokens(rank)),
        first_token_(c.first_token(rank)),
        first_expert_(rank * c.local_experts()),
        first_row_(whole.offsets[first_expert_]),
        row_count_(whole.offsets[first_expert_ + c.local_experts()] - first_row_),
        rows_(c, exchange.max_rows()),
        row_weight_(DType::kF32, 1, exchange.max_rows()),
        results_(c.act, exchange.max_rows(), c.hidden),
        out_(c.act, tokens_, c.hidden),
        d_results_(c, exchange.max_rows()),
        d_rows_(c.act, exchange.max_rows(), c.hidden),
        d_row_weight_(DType::kF32, 1, exchange.max_rows()),
        d_weights_(DType::kF32, tokens_, c.chosen),
        dx_(c.act, tokens_, c.hidden) {
    std::memcpy(results_.view().data, whole.results.view().row_bytes(first_row_),
                BytesOf(c.act, row_count_ * c.hidden));
    std::memcpy(d_rows_.view().data, whole.d_rows.view().row_bytes(first_row_), BytesOf(c.act, row_count_ * c.hidden));
    std::memcpy(d_row_weight_.view().data, whole.d_row_weight.view().as<float>() + first_row_,
                row_count_ * sizeof(float));
  }

  void BeginDispatch(Backend& backend, Stream& stream) {
    exchange_.BeginDispatch(backend, stream, *plan_,
                            {whole_.x.operand(first_token_, tokens_), Lane(whole_.experts), Lane(whole_.weights),
                             rows_.operand(0, exchange_.max_rows()), row_weight_});
  }
  void AwaitDispatch(Backend& backend, Stream& stream) { exchange_.AwaitDispatch(backend, stream, *plan_); }
  void BeginCombine(Backend& backend, Stream& stream) { exchange_.BeginCombine(backend, stream, *plan_, results_); }
  void AwaitCombine(Backend& backend, Stream& stream) {
    exchange_.AwaitCombine(backend, stream, *plan_, Lane(whole_.base), out_);
  }
  void BeginCombineBackward(Backend& backend, Stream& stream) {
    exchange_.BeginCombineBackward(backend, stream, *plan_, whole_.d_out.operand(first_token_, tokens_),
                                   d_results_.operand(0, exchange_.max_rows()));
  }
  void AwaitCombineBackward(Backend& backend, Stream& stream) {
    exchange_.AwaitCombineBackward(backend, stream, *plan_);
  }
  void BeginDispatchBackward(Backend& backend, Stream& stream) {
    exchange_.BeginDispatchBackward(backend, stream, *plan_, d_rows_, d_row_weight_);
  }
  void AwaitDispatchBackward(Backend& backend, Stream& stream) {
    exchange_.AwaitWeightGradients(backend, stream, *plan_, d_weights_);
    exchange_.AwaitDispatchBackward(backend, stream, *plan_, Lane(whole_.base), dx_);
  }
  void Forward(Backend& backend, Stream& stream) {
    BeginDispatch(backend, stream);
    AwaitDispatch(backend, stream);
    BeginCombine(backend, stream);
    AwaitCombine(backend, stream);
  }
  void Backward(Backend& backend, Stream& stream) {
    BeginCombineBackward(backend, stream);
    AwaitCombineBackward(backend, stream);
    BeginDispatchBackward(backend, stream);
    AwaitDispatchBackward(backend, stream);
  }

  // Everything as the one rank has it, to the bit.
  void Check() const {
    CheckOffsets();
    ExpectSameRows(rows_.values, 0, whole_.rows.values, first_row_, row_count_, "rows");
    if (c_.fp8) ExpectSameRows(rows_.scales, 0, whole_.rows.scales, first_row_, row_count_, "scales");
    EXPECT_EQ(std::memcmp(row_weight_.view().as<float>(), whole_.row_weight.view().as<float>() + first_row_,
                          row_count_ * sizeof(float)),
              0);
    ExpectSameRows(out_, 0, whole_.out, first_token_, tokens_, "out");
    ExpectSameRows(d_results_.values, 0, whole_.d_results.values, first_row_, row_count_, "d_results");
    if (c_.fp8) ExpectSameRows(d_results_.scales, 0, whole_.d_results.scales, first_row_, row_count_, "d_scales");
    ExpectSameRows(d_weights_, 0, whole_.d_weights, first_token_, tokens_, "d_weights");
    ExpectSameRows(dx_, 0, whole_.dx, first_token_, tokens_, "dx");
  }

  void CheckOffsets() const {
    const int64_t experts = c_.local_experts();
    const Segments segments = exchange_.segments(*plan_);
    const ConstView lanes = exchange_.lane_offsets(*plan_);
    const absl::Span<const int32_t> host = exchange_.host_lane_offsets(*plan_);
    ASSERT_EQ(segments.groups, experts);
    ASSERT_EQ(lanes.cols, experts * c_.ranks + 1);
    ASSERT_EQ(static_cast<int64_t>(host.size()), lanes.cols);
    for (int64_t e = 0; e <= experts; ++e) {
      EXPECT_EQ(segments.offsets.as<int32_t>()[e], whole_.offsets[first_expert_ + e] - first_row_);
    }
    std::vector<int32_t> counts(experts * c_.ranks);
    for (int lane = 0; lane < c_.ranks; ++lane) {
      for (int64_t t = c_.first_token(lane); t < c_.first_token(lane + 1); ++t) {
        for (int64_t k = 0; k < c_.chosen; ++k) {
          const int64_t e = static_cast<int64_t>(whole_.experts.at(t, k)) - first_expert_;
          if (e >= 0 && e < experts) ++counts[e * c_.ranks + lane];
        }
      }
    }
    EXPECT_EQ(lanes.as<int32_t>()[0], 0);
    for (size_t i = 0; i < counts.size(); ++i) {
      EXPECT_EQ(lanes.as<int32_t>()[i + 1] - lanes.as<int32_t>()[i], counts[i]);
      EXPECT_EQ(host[i + 1], lanes.as<int32_t>()[i + 1]);
    }
  }

  ExpertExchange::Plan& plan() { return *plan_; }

 private:
  View Lane(const TestTensor& x) const { return x.view().Rows(first_token_, tokens_); }

  const ExchangeCase& c_;
  const WholeBatch& whole_;
  const ExpertExchange& exchange_;
  const std::unique_ptr<ExpertExchange::Plan> plan_;
  const int64_t tokens_, first_token_, first_expert_, first_row_, row_count_;
  SentTensor rows_;
  TestTensor row_weight_, results_, out_;
  SentTensor d_results_;
  TestTensor d_rows_, d_row_weight_, d_weights_, dx_;
};

inline config::LayoutConfig LayoutOf(const ExchangeCase& c) {
  config::LayoutConfig layout;
  layout.set_data_ranks(c.ranks);
  layout.set_expert_ranks(c.ranks);
  layout.set_ranks_per_node(c.node_ranks);
  layout.mutable_exchange()->set_buffer_factor(c.buffer_factor);
  if (c.two_hop) layout.mutable_exchange()->set_path(config::ExpertExchange::TWO_HOP);
  return layout;
}

inline std::unique_ptr<ExpertExchange> MakeExchangeOf(const ExchangeCase& c, int rank, Communicator& group,
                                                      Arena& arena, double timeout_s = 60) {
  const config::LayoutConfig layout = LayoutOf(c);
  const absl::StatusOr<Mesh> mesh = Mesh::Create(layout);
  ExchangeOptions options;
  options.hidden = c.hidden;
  options.act = c.act;
  options.dispatch = {c.sent(), c.tile()};
  options.dispatch_gradient = options.dispatch;
  options.timeout_s = timeout_s;
  return *MakeExchange(layout, *mesh, Rank(rank), c.shape(c.tokens), options, group, arena);
}

// An arena with memory of its own, as large as measured.
class OwnArena {
 public:
  explicit OwnArena(int64_t bytes) : memory_(bytes + 64) {
    std::byte* data = memory_.data();
    arena_ = std::make_unique<Arena>(data + (64 - reinterpret_cast<uintptr_t>(data) % 64) % 64, bytes);
  }
  Arena& operator*() { return *arena_; }

 private:
  std::vector<std::byte> memory_;
  std::unique_ptr<Arena> arena_;
};

// fn(rank, communicator, backend, stream) on a thread for each rank of one group.
using RankFn = std::function<void(int rank, std::unique_ptr<Communicator> group, Backend& backend, Stream& stream)>;
inline void OnRanks(int ranks, const RankFn& fn) {
  ThreadWorld world(ranks);
  RankGroup group{"experts", {}};
  for (int rank = 0; rank < ranks; ++rank) group.members.push_back(Rank(rank));
  std::vector<std::unique_ptr<Communicator>> communicators = world.MakeGroup(group);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
      const std::unique_ptr<Stream> stream = backend->MakeStream();
      fn(rank, std::move(communicators[rank]), *backend, *stream);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace shoestring
