// Prints how fast the CPU's memory-bound operations move bytes, beside a plain copy, at widths of a small model.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "kernels/arena.h"
#include "kernels/cpu/cpu_backend.h"

namespace shoestring {
namespace {

constexpr int64_t kTokens = 2048, kWidth = 1024, kExperts = 64, kChosen = 6, kVocabulary = 8192;

struct alignas(64) Line {
  std::byte bytes[64];
};

// Best of several runs, in seconds.
double Time(const std::function<void()>& fn) {
  double best = 1e9;
  for (int run = 0; run < 7; ++run) {
    const auto start = std::chrono::steady_clock::now();
    fn();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

class Bench {
 public:
  explicit Bench(int threads)
      : backend_(MakeCpuBackend({.threads = threads})),
        stream_(backend_->MakeStream()),
        memory_(int64_t{12} << 20),
        arena_(memory_[0].bytes, static_cast<int64_t>(memory_.size()) * 64) {}

  View Make(DType dtype, int64_t rows, int64_t cols) {
    const View view = arena_.Allocate(Purpose::kScratch, "t", dtype, rows, cols);
    for (int64_t i = 0; dtype == DType::kF32 && i < view.elements(); ++i) {
      view.as<float>()[i] = static_cast<float>((i * 2654435761u) % 2000) * 1e-3f - 1.0f;
    }
    if (dtype == DType::kBF16) backend_->Copy(*stream_, Make(DType::kF32, rows, cols), view);
    return view;
  }

  void Report(const char* name, int64_t bytes, const std::function<void(Backend&, Stream&)>& op) {
    const double seconds = Time([&] { op(*backend_, *stream_); });
    std::printf("%-28s %8.3f ms %8.2f GB/s\n", name, 1e3 * seconds, 1e-9 * static_cast<double>(bytes) / seconds);
  }

  void Rows(DType act);
  void Formats(DType act);
  void Router();
  void Ends();

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::vector<Line> memory_;
  Arena arena_;
};

void Bench::Rows(DType act) {
  ArenaScope scope(arena_);
  const View x = Make(act, kTokens, kWidth), y = Make(act, kTokens, kWidth), z = Make(act, kTokens, kWidth);
  const View gain = Make(act, 1, kWidth), inverse = Make(DType::kF32, 1, kTokens),
             d_gain = Make(DType::kF32, 1, kWidth);
  const View gate_up = Make(act, kTokens, 2 * kWidth), d_gate_up = Make(act, kTokens, 2 * kWidth);
  std::printf("-- rows, %s\n", Name(act));
  Report("copy", 2 * x.bytes(), [&](Backend& b, Stream& s) { b.Copy(s, x, y); });
  Report("add", 3 * x.bytes(), [&](Backend& b, Stream& s) { b.Add(s, x, y, z); });
  Report("rms_norm", 2 * x.bytes(), [&](Backend& b, Stream& s) {
    b.RmsNorm(s, {.x = x, .delta = {}, .sum = {}, .gain = gain, .eps = 1e-6, .y = y, .inverse_rms = inverse});
  });
  Report("rms_norm + residual", 4 * x.bytes(), [&](Backend& b, Stream& s) {
    b.RmsNorm(s, {.x = x, .delta = y, .sum = x, .gain = gain, .eps = 1e-6, .y = z, .inverse_rms = inverse});
  });
  Report("rms_norm_backward_input", 4 * x.bytes(), [&](Backend& b, Stream& s) {
    b.RmsNormBackwardInput(s, {.dy = x, .x = y, .gain = gain, .inverse_rms = inverse, .add = z, .dx = z});
  });
  Report("rms_norm_backward_weight", 2 * x.bytes(), [&](Backend& b, Stream& s) {
    b.RmsNormBackwardWeight(s, {.dy = x, .x = y, .inverse_rms = inverse, .d_gain = d_gain});
  });
  const SwiGluArgs swiglu = {.gate_up = gate_up, .row_weight = {}, .offsets = {}};
  Report("swiglu", 3 * x.bytes(), [&](Backend& b, Stream& s) { b.SwiGlu(s, swiglu, y); });
  Report("swiglu_backward", 5 * x.bytes(),
         [&](Backend& b, Stream& s) { b.SwiGluBackward(s, swiglu, x, d_gate_up, inverse); });
  const View table = Make(DType::kF32, kTokens, 32), positions = Make(DType::kI32, 1, kTokens);
  for (int32_t t = 0; t < kTokens; ++t) positions.as<int32_t>()[t] = t;
  Report("rope (8 heads of 64)", x.bytes(), [&](Backend& b, Stream& s) {
    b.Rope(s, {.x = x, .heads = 8, .head_stride = 128, .cos_table = table, .sin_table = table, .positions = positions});
  });
}

// Rates in elements: what a thread quantises or reads in a second.
void Bench::Formats(DType act) {
  std::printf("-- number formats, %s\n", Name(act));
  const auto quantised = [&](DType dtype, int64_t rows, int64_t cols, Tile tile) {
    return MutableOperand(Make(dtype, rows, cols), Make(DType::kF32, ScaleRows(tile, rows), ScaleColumns(tile, cols)),
                          tile);
  };
  ArenaScope scope(arena_);
  const View x = Make(act, kTokens, kWidth), y = Make(act, kTokens, kWidth), gain = Make(act, 1, kWidth);
  const int64_t elements = x.elements();
  const auto report = [&](const char* name, const std::function<void(Backend&, Stream&)>& op) {
    const double seconds = Time([&] { op(*backend_, *stream_); });
    std::printf("%-28s %8.3f ms %8.2f Gelem/s\n", name, 1e3 * seconds, 1e-9 * static_cast<double>(elements) / seconds);
  };
  const MutableOperand rows = quantised(DType::kE4M3, kTokens, kWidth, {1, 128});
  const MutableOperand columns = quantised(DType::kE4M3, kTokens, kWidth, {128, 1});
  const MutableOperand squares = quantised(DType::kE5M2, kTokens, kWidth, {128, 128});
  const MutableOperand wide = quantised(DType::kE5M6, kTokens, kWidth, {1, 128});
  report("quantise to e4m3, 1 x 128", [&](Backend& b, Stream& s) { b.Quantize(s, {x, rows}); });
  report("quantise to e4m3, 128 x 1", [&](Backend& b, Stream& s) { b.Quantize(s, {x, columns}); });
  report("quantise to e5m2, 128 x 128", [&](Backend& b, Stream& s) { b.Quantize(s, {x, squares}); });
  report("quantise to e5m6, 1 x 128", [&](Backend& b, Stream& s) { b.Quantize(s, {x, wide}); });
  report("e4m3 1 x 128 to 128 x 1", [&](Backend& b, Stream& s) { b.Quantize(s, {rows, columns}); });
  report("e5m6 1 x 128 to e4m3", [&](Backend& b, Stream& s) { b.Quantize(s, {wide, rows}); });
  report("dequantise e4m3", [&](Backend& b, Stream& s) { b.Dequantize(s, rows, y); });
  report("dequantise e5m6", [&](Backend& b, Stream& s) { b.Dequantize(s, wide, y); });
  const RmsNormArgs norm = {
      .x = x, .delta = {}, .sum = {}, .gain = gain, .eps = 1e-6, .y = MutableOperand(y), .inverse_rms = {}};
  RmsNormArgs fused = norm;
  fused.y = rows;
  report("rms_norm", [&](Backend& b, Stream& s) { b.RmsNorm(s, norm); });
  report("rms_norm to e4m3", [&](Backend& b, Stream& s) { b.RmsNorm(s, fused); });
}

void Bench::Router() {
  ArenaScope scope(arena_);
  std::printf("-- router, %d experts, %d chosen\n", static_cast<int>(kExperts), static_cast<int>(kChosen));
  const View logits = Make(DType::kF32, kTokens, kExperts), scores = Make(DType::kF32, kTokens, kExperts);
  const View bias = Make(DType::kF32, 1, kExperts), experts = Make(DType::kI32, kTokens, kChosen);
  const View weights = Make(DType::kF32, kTokens, kChosen), counts = Make(DType::kI64, 1, kExperts);
  const View loss = Make(DType::kF32, 1, 2), d_scores = Make(DType::kF32, kTokens, kExperts);
  const int64_t rows = kTokens * kChosen;
  const View offsets = Make(DType::kI32, 1, kExperts + 1), row_token = Make(DType::kI32, 1, rows);
  const View row_slot = Make(DType::kI32, 1, rows), slot_row = Make(DType::kI32, kTokens, kChosen);
  const View x = Make(DType::kBF16, kTokens, kWidth), y = Make(DType::kBF16, rows, kWidth);
  const GateArgs gate = {.logits = logits, .bias = bias, .groups = 8, .groups_kept = 4, .chosen = kChosen};
  const auto zero = [&](Backend& b, Stream& s) { b.Zero(s, counts); };
  zero(*backend_, *stream_);
  Report("gate", 2 * logits.bytes(), [&](Backend& b, Stream& s) {
    b.Gate(s, gate, {scores, experts, weights, counts});
  });
  Report("gate_backward", 3 * logits.bytes(), [&](Backend& b, Stream& s) {
    b.GateBackward(s, gate,
                   {.scores = scores, .experts = experts, .d_weights = weights, .d_scores = {}, .d_logits = d_scores});
  });
  Report("sequence_balance", 3 * logits.bytes(), [&](Backend& b, Stream& s) {
    b.SequenceBalance(s, {.scores = scores,
                          .sequence_length = kTokens / 2,
                          .chosen = kChosen,
                          .loss_scale = 1,
                          .loss = loss,
                          .d_scores = d_scores});
  });
  Report("plan_dispatch", 4 * rows * 4, [&](Backend& b, Stream& s) {
    b.PlanDispatch(s, {experts, kExperts, offsets, row_token, row_slot, slot_row});
  });
  Report("gather_rows", 2 * y.bytes(), [&](Backend& b, Stream& s) { b.GatherRows(s, x, row_token, offsets, y); });
  Report("combine_rows", y.bytes() + 2 * x.bytes(), [&](Backend& b, Stream& s) {
    b.CombineRows(s, {.y = y, .slot_row = slot_row, .experts = experts, .experts_per_group = 8, .base = x}, x);
  });
}

void Bench::Ends() {
  ArenaScope scope(arena_);
  std::printf("-- ends, vocabulary %d\n", static_cast<int>(kVocabulary));
  const View logits = Make(DType::kF32, kTokens, kVocabulary), loss = Make(DType::kF32, 1, kTokens);
  const View ids = Make(DType::kI32, 1, kTokens), d_logits = Make(DType::kBF16, kTokens, kVocabulary);
  for (int32_t t = 0; t < kTokens; ++t) ids.as<int32_t>()[t] = static_cast<int32_t>(t * 37 % kVocabulary);
  Report("cross_entropy to bf16", logits.bytes() + d_logits.bytes(), [&](Backend& b, Stream& s) {
    b.CrossEntropy(s, {.logits = logits, .targets = ids, .grad_scale = 1, .loss = loss, .d_logits = d_logits});
  });
  const View dx = Make(DType::kBF16, kTokens, kWidth), table = Make(DType::kF32, kVocabulary, kWidth);
  Report("embedding_backward", 5 * dx.bytes(), [&](Backend& b, Stream& s) { b.EmbeddingBackward(s, ids, dx, table); });
  const View master = table, grad = Make(DType::kF32, kVocabulary, kWidth),
             compute = Make(DType::kBF16, kVocabulary, kWidth);
  const View m = Make(DType::kBF16, kVocabulary, kWidth), v = Make(DType::kBF16, kVocabulary, kWidth);
  backend_->Zero(*stream_, v);
  Report("adamw, bf16 moments", 22 * master.elements(), [&](Backend& b, Stream& s) {
    b.AdamW(s, {.master = master, .grad = grad, .m = m, .v = v, .compute = compute, .learning_rate = 1e-6});
  });
  const View sums = Make(DType::kF64, 1, NormBlocks(grad.elements()));
  Report("squared_norm", grad.bytes(), [&](Backend& b, Stream& s) { b.SquaredNorm(s, grad, sums); });
  Report("ema", 3 * grad.bytes(), [&](Backend& b, Stream& s) { b.Ema(s, master, 0.999, grad); });
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  shoestring::Bench bench(argc > 1 ? std::atoi(argv[1]) : 1);
  bench.Rows(shoestring::DType::kBF16);
  bench.Rows(shoestring::DType::kF32);
  bench.Formats(shoestring::DType::kBF16);
  bench.Formats(shoestring::DType::kF32);
  bench.Router();
  bench.Ends();
  return 0;
}
