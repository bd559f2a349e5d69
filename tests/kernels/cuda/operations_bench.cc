// Prints how fast the GPU's memory-bound operations move bytes, beside a plain copy measured in the same run, at the
// widths of DeepSeek-V3 and at sizes several times the L2 cache.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/rng.h"
#include "kernels/arena.h"
#include "tests/kernels/cuda/cuda_for_tests.h"

namespace shoestring {
namespace {

constexpr int64_t kTokens = 16384, kWidth = 7168, kFfn = 2048, kExperts = 256, kChosen = 8, kVocabulary = 129280;
constexpr int64_t kHeads = 128, kHeadWidth = 192, kRopePairs = 32, kHeadRows = 2048;
constexpr int64_t kMemory = int64_t{24} << 30;
constexpr double kSeconds = 0.05;  // of each measurement
constexpr int kRounds = 5;         // of which the best counts

class Bench {
 public:
  explicit Bench(Backend& backend)
      : backend_(backend),
        stream_(backend.MakeStream()),
        memory_(backend.Allocate(kMemory)),
        arena_(memory_ == nullptr ? nullptr : memory_->data(), kMemory) {}
  bool has_memory() const { return memory_ != nullptr; }

  // Normal numbers, a block of them over and over.
  View Random(DType dtype, int64_t rows, int64_t cols, double scale = 1) {
    constexpr int64_t kBlock = int64_t{1} << 20;
    const View x = Make(dtype, rows, cols), f32 = Make(DType::kF32, 1, std::min(kBlock, x.elements()));
    const Rng rng(++seed_, RngPurpose::kTest, 0);
    std::vector<float> values(f32.cols);
    for (int64_t i = 0; i < f32.cols; ++i) values[i] = static_cast<float>(scale * rng.Normal(i));
    backend_.CopyFromHost(*stream_, values.data(), f32);
    backend_.Synchronize(*stream_);
    const View flat = x.Reshape(1, x.elements());
    for (int64_t i = 0; i < flat.cols; i += kBlock) {
      const int64_t count = std::min(kBlock, flat.cols - i);
      backend_.Copy(*stream_, f32.Columns(0, count), flat.Columns(i, count));
    }
    return x;
  }
  View Ids(int64_t rows, int64_t cols, int64_t limit) {
    const View x = Make(DType::kI32, rows, cols);
    const Rng rng(++seed_, RngPurpose::kTest, 0);
    std::vector<int32_t> ids(x.elements());
    for (int64_t i = 0; i < x.elements(); ++i) ids[i] = static_cast<int32_t>(rng.Below(i, limit));
    backend_.CopyFromHost(*stream_, ids.data(), x);
    backend_.Synchronize(*stream_);
    return x;
  }
  View Make(DType dtype, int64_t rows, int64_t cols) {
    return arena_.Allocate(Purpose::kScratch, "t", dtype, rows, cols);
  }
  MutableOperand MakeCoded(int64_t rows, int64_t cols, Tile tile) {
    return {Make(DType::kE4M3, rows, cols), Make(DType::kF32, ScaleRows(tile, rows), ScaleColumns(tile, cols)), tile,
            true};
  }

  // `bytes` that the operation must read and write at least; the first one measured is what the others stand beside.
  void Measure(const std::string& name, int64_t bytes, const std::function<void(Backend&, Stream&)>& run) {
    const double once = Seconds(run, 1);
    const int repeats = std::max(1, static_cast<int>(kSeconds / once));
    double best = 1e9;
    for (int round = 0; round < kRounds; ++round) best = std::min(best, Seconds(run, repeats) / repeats);
    const double rate = static_cast<double>(bytes) / best * 1e-9;
    if (copy_rate_ == 0) copy_rate_ = rate;
    std::printf("%-34s %9.1f %9.1f %9.0f %8.0f %%\n", name.c_str(), static_cast<double>(bytes) * 1e-6, best * 1e6, rate,
                100 * rate / copy_rate_);
  }
  // Tensors made by `run` are given back after it.
  void Scoped(const std::function<void()>& run) {
    const ArenaScope scope(arena_);
    run();
  }

 private:
  double Seconds(const std::function<void(Backend&, Stream&)>& run, int repeats) {
    backend_.Synchronize(*stream_);
    const double start = RealClock().MonotonicSeconds();
    for (int i = 0; i < repeats; ++i) run(backend_, *stream_);
    backend_.Synchronize(*stream_);
    return RealClock().MonotonicSeconds() - start;
  }

  Backend& backend_;
  const std::unique_ptr<Stream> stream_;
  const std::unique_ptr<Memory> memory_;
  Arena arena_;
  uint64_t seed_ = 0;
  double copy_rate_ = 0;
};

constexpr DType kBf16 = DType::kBF16, kF32 = DType::kF32;
constexpr int64_t kActivation = kTokens * kWidth * 2;   // bytes
constexpr int64_t kCodes = kTokens * kWidth * 33 / 32;  // with a scale for each 128
constexpr int64_t kHidden = kTokens * kFfn * 2;         // of an expert's row

void MeasureRows(Bench& bench) {
  const View x = bench.Random(kBf16, kTokens, kWidth), y = bench.Random(kBf16, kTokens, kWidth);
  const View gain = bench.Random(kF32, 1, kWidth), rms = bench.Random(kF32, 1, kTokens);
  const View d_gain = bench.Random(kF32, 1, kWidth);
  const MutableOperand coded = bench.MakeCoded(kTokens, kWidth, {1, 128});
  bench.Measure("copy", 2 * kActivation, [&](Backend& b, Stream& s) { b.Copy(s, x, y); });
  bench.Measure("add", 3 * kActivation, [&](Backend& b, Stream& s) { b.Add(s, x, y, y); });
  bench.Measure("rms_norm", 2 * kActivation, [&](Backend& b, Stream& s) {
    b.RmsNorm(s, {.x = x, .delta = {}, .sum = {}, .gain = gain, .eps = 1e-6, .y = y, .inverse_rms = rms});
  });
  bench.Measure("rms_norm, residual, quantised", 3 * kActivation + kCodes, [&](Backend& b, Stream& s) {
    b.RmsNorm(s, {.x = x, .delta = y, .sum = y, .gain = gain, .eps = 1e-6, .y = coded, .inverse_rms = rms});
  });
  bench.Measure("rms_norm backward, input", 4 * kActivation, [&](Backend& b, Stream& s) {
    b.RmsNormBackwardInput(s, {.dy = y, .x = x, .gain = gain, .inverse_rms = rms, .add = y, .dx = y});
  });
  bench.Measure("rms_norm backward, gain", 2 * kActivation, [&](Backend& b, Stream& s) {
    b.RmsNormBackwardWeight(s, {.dy = y, .x = x, .inverse_rms = rms, .d_gain = d_gain});
  });
}

void MeasureQuantisers(Bench& bench) {
  const View x = bench.Random(kBf16, kTokens, kWidth), y = bench.Make(kBf16, kTokens, kWidth);
  const MutableOperand by_row = bench.MakeCoded(kTokens, kWidth, {1, 128});
  const MutableOperand by_column = bench.MakeCoded(kTokens, kWidth, {128, 1});
  const MutableOperand by_block = bench.MakeCoded(kTokens, kWidth, {128, 128});
  bench.Measure("quantise 1x128", kActivation + kCodes, [&](Backend& b, Stream& s) { b.Quantize(s, {x, by_row}); });
  bench.Measure("quantise 128x1", kActivation + kCodes, [&](Backend& b, Stream& s) { b.Quantize(s, {x, by_column}); });
  bench.Measure("quantise 128x128", kActivation + kCodes, [&](Backend& b, Stream& s) { b.Quantize(s, {x, by_block}); });
  bench.Measure("regroup 1x128 to 128x1", 2 * kCodes, [&](Backend& b, Stream& s) {
    b.Quantize(s, {by_row, by_column});
  });
  bench.Measure("dequantise", kActivation + kCodes, [&](Backend& b, Stream& s) { b.Dequantize(s, by_row, y); });
}

void MeasureActivation(Bench& bench) {
  const int64_t rows = 4 * kTokens;
  const View gate_up = bench.Random(kBf16, rows, 2 * kFfn), dy = bench.Random(kBf16, rows, kFfn);
  const View y = bench.Make(kBf16, rows, kFfn), weight = bench.Random(kF32, 1, rows),
             d_weight = bench.Make(kF32, 1, rows);
  const MutableOperand coded = bench.MakeCoded(rows, kFfn, {1, 128});
  const SwiGluArgs args = {.gate_up = gate_up, .row_weight = weight, .offsets = {}};
  bench.Measure("swiglu", 12 * kHidden, [&](Backend& b, Stream& s) { b.SwiGlu(s, args, y); });
  bench.Measure("swiglu, quantised", 10 * kHidden + kHidden / 16,
                [&](Backend& b, Stream& s) { b.SwiGlu(s, args, coded); });
  bench.Measure("swiglu backward", 20 * kHidden,
                [&](Backend& b, Stream& s) { b.SwiGluBackward(s, args, dy, gate_up, d_weight); });
  const View q = bench.Random(kBf16, kTokens / 2, kHeads * kHeadWidth), table = bench.Random(kF32, 4096, kRopePairs);
  const View positions = bench.Ids(1, kTokens / 2, 4096);
  bench.Measure("rope of queries", 2 * (kTokens / 2) * kHeads * 2 * kRopePairs * 2, [&](Backend& b, Stream& s) {
    b.Rope(s, {.x = q,
               .heads = kHeads,
               .head_stride = kHeadWidth,
               .offset = kHeadWidth - 2 * kRopePairs,
               .cos_table = table,
               .sin_table = table,
               .positions = positions});
  });
}

void MeasureExchange(Bench& bench) {
  const int64_t tokens = 4096, rows = tokens * kChosen, all = 8 * kTokens;
  const View logits = bench.Random(kF32, all, kExperts), scores = bench.Make(kF32, all, kExperts);
  const View ids = bench.Make(DType::kI32, all, kChosen), weights = bench.Make(kF32, all, kChosen);
  const View counts = bench.Make(DType::kI64, 1, kExperts), loss = bench.Make(kF32, 1, all / 4096);
  const GateArgs gate = {.logits = logits, .bias = {}, .groups = 8, .groups_kept = 4, .chosen = kChosen};
  const int64_t table = all * kExperts * 4;
  bench.Measure("gate", 2 * table, [&](Backend& b, Stream& s) { b.Gate(s, gate, {scores, ids, weights, counts}); });
  bench.Measure("gate backward", 3 * table, [&](Backend& b, Stream& s) {
    b.GateBackward(s, gate,
                   {.scores = scores, .experts = ids, .d_weights = weights, .d_scores = logits, .d_logits = logits});
  });
  bench.Measure("balance loss", 3 * table, [&](Backend& b, Stream& s) {
    b.SequenceBalance(s, {.scores = scores,
                          .sequence_length = 4096,
                          .chosen = kChosen,
                          .loss_scale = 1,
                          .loss = loss,
                          .d_scores = logits});
  });
  const View x = bench.Random(kBf16, tokens, kWidth), out = bench.Make(kBf16, tokens, kWidth);
  const View sent = bench.Random(kBf16, rows, kWidth), experts = ids.Rows(0, tokens);
  const View offsets = bench.Make(DType::kI32, 1, kExperts + 1), row_token = bench.Make(DType::kI32, 1, rows);
  const View row_slot = bench.Make(DType::kI32, 1, rows), slot_row = bench.Make(DType::kI32, tokens, kChosen);
  const PlanDispatchArgs plan = {experts, kExperts, offsets, row_token, row_slot, slot_row};
  bench.Measure("plan dispatch", 5 * rows * 4, [&](Backend& b, Stream& s) { b.PlanDispatch(s, plan); });
  bench.Measure("gather rows", 2 * rows * kWidth * 2,
                [&](Backend& b, Stream& s) { b.GatherRows(s, x, row_token, offsets, sent); });
  bench.Measure("combine rows", (rows + 2 * tokens) * kWidth * 2, [&](Backend& b, Stream& s) {
    b.CombineRows(s, {.y = sent, .slot_row = slot_row, .experts = experts, .experts_per_group = 32, .base = x}, out);
  });
}

void MeasureEnds(Bench& bench) {
  const View logits = bench.Random(kF32, kHeadRows, kVocabulary), d_logits = bench.Make(kBf16, kHeadRows, kVocabulary);
  const View targets = bench.Ids(1, kHeadRows, kVocabulary), loss = bench.Make(kF32, 1, kHeadRows);
  const int64_t table = kHeadRows * kVocabulary * 4;
  bench.Measure("cross-entropy, bf16 gradient", table + table / 2, [&](Backend& b, Stream& s) {
    b.CrossEntropy(s, {.logits = logits, .targets = targets, .grad_scale = 1, .loss = loss, .d_logits = d_logits});
  });
  bench.Measure("cross-entropy in place", 2 * table, [&](Backend& b, Stream& s) {
    b.CrossEntropy(s, {.logits = logits, .targets = targets, .grad_scale = 1, .loss = loss, .d_logits = logits});
  });
  const View embedding = bench.Random(kBf16, kVocabulary, kWidth), d_embedding = bench.Make(kF32, kVocabulary, kWidth);
  const View ids = bench.Ids(1, kTokens, kVocabulary), x = bench.Random(kBf16, kTokens, kWidth);
  bench.Measure("embedding", 2 * kActivation, [&](Backend& b, Stream& s) { b.Embedding(s, ids, embedding, x); });
  // Random ids hardly repeat: the gradient of nearly every token reads and writes a row of its own.
  bench.Measure("embedding backward", 5 * kActivation,
                [&](Backend& b, Stream& s) { b.EmbeddingBackward(s, ids, x, d_embedding); });
}

void MeasureOptimizer(Bench& bench) {
  const int64_t count = int64_t{1} << 28;
  const View w = bench.Random(kF32, 1, count), grad = bench.Random(kF32, 1, count), m = bench.Random(kBf16, 1, count);
  const View v = bench.Make(kBf16, 1, count), compute = bench.Make(kBf16, 1, count);
  const View sums = bench.Make(DType::kF64, 1, NormBlocks(count));
  bench.Measure("adamw, bf16 moments and copy", 22 * count, [&](Backend& b, Stream& s) {
    b.AdamW(s, {.master = w, .grad = grad, .m = m, .v = v, .compute = compute, .learning_rate = 1e-6});
  });
  bench.Measure("ema", 12 * count, [&](Backend& b, Stream& s) { b.Ema(s, w, 0.999, grad); });
  bench.Measure("squared norm", 4 * count, [&](Backend& b, Stream& s) { b.SquaredNorm(s, grad, sums); });
}

int Main() {
  const absl::StatusOr<Backend*> backend = CudaForTests();
  if (!backend.ok()) {
    std::fprintf(stderr, "cuda_operations_bench: %s\n", std::string(backend.status().message()).c_str());
    return 69;
  }
  Bench bench(**backend);
  if (!bench.has_memory()) {
    std::fprintf(stderr, "cuda_operations_bench: needs 24 GiB of the device's memory\n");
    return 69;
  }
  std::printf("%-34s %9s %9s %9s %10s\n", "operation", "MB", "us", "GB/s", "of copy");
  for (const auto measure :
       {MeasureRows, MeasureQuantisers, MeasureActivation, MeasureExchange, MeasureEnds, MeasureOptimizer}) {
    bench.Scoped([&] { measure(bench); });
  }
  return 0;
}

}  // namespace
}  // namespace shoestring

int main() { return shoestring::Main(); }
