// Tests that operations on a GPU take no memory and never wait for the device once they have run: calls of CUDA that
// would are counted on their way.
//
// The functions below stand in the program, where the module finds them before CUDA's own.
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/arena.h"
#include "tests/kernels/cuda/cuda_for_tests.h"

namespace shoestring {
namespace {

struct Calls {
  std::atomic<int64_t> queries{0};      // of devices
  std::atomic<int64_t> allocations{0};  // and what gives memory back
  std::atomic<int64_t> waits{0};        // of the host for the device
};

// CUDA's functions take no argument that counters could be passed in.
Calls& Counters() {
  static Calls* const calls = new Calls();
  return *calls;
}

// CUDA's own function of that name.
template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

template <typename Function, typename... Args>
cudaError_t Counted(std::atomic<int64_t>& counter, Function*, const char* name, Args... args) {
  ++counter;
  Function* const real = Real<Function>(name);
  return real == nullptr ? cudaErrorUnknown : real(args...);
}

}  // namespace
}  // namespace shoestring

#define COUNTED(counter, function, ...) \
  shoestring::Counted(shoestring::Counters().counter, &function, #function, __VA_ARGS__)

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) { return COUNTED(queries, cudaGetDeviceCount, count); }

cudaError_t cudaMalloc(void** data, size_t size) { return COUNTED(allocations, cudaMalloc, data, size); }
cudaError_t cudaMallocAsync(void** data, size_t size, cudaStream_t stream) {
  return COUNTED(allocations, cudaMallocAsync, data, size, stream);
}
cudaError_t cudaMallocHost(void** data, size_t size) { return COUNTED(allocations, cudaMallocHost, data, size); }
cudaError_t cudaHostAlloc(void** data, size_t size, unsigned flags) {
  return COUNTED(allocations, cudaHostAlloc, data, size, flags);
}
cudaError_t cudaFree(void* data) { return COUNTED(allocations, cudaFree, data); }
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) { return COUNTED(allocations, cudaFreeAsync, data, stream); }

cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return COUNTED(waits, cudaStreamSynchronize, stream); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return COUNTED(waits, cudaEventSynchronize, event); }
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  return COUNTED(waits, cudaMemcpy, to, from, size, kind);
}
cudaError_t cudaDeviceSynchronize() {
  ++shoestring::Counters().waits;
  auto* const real = shoestring::Real<cudaError_t()>("cudaDeviceSynchronize");
  return real == nullptr ? cudaErrorUnknown : real();
}

}  // extern "C"

namespace shoestring {
namespace {

// Needs no GPU: opening one begins with counting devices, and that count comes by here.
TEST(CudaHotPathTest, CallsOfTheModuleAreCounted) {
  const absl::StatusOr<Backend*> cuda = CudaForTests();
  ASSERT_TRUE(cuda.ok() || cuda.status().code() == absl::StatusCode::kUnavailable) << cuda.status();
  EXPECT_GE(Counters().queries, 1);
}

// Tensors of one layer, in the device's memory.
class Layer {
 public:
  static constexpr int64_t kTokens = 512, kWidth = 256, kExperts = 16, kChosen = 4, kVocabulary = 1000;
  static constexpr int64_t kRows = kTokens * kChosen, kMemory = int64_t{256} << 20;

  explicit Layer(Backend& backend)
      : backend_(backend),
        stream_(backend.MakeStream()),
        memory_(backend.Allocate(kMemory)),
        arena_(memory_->data(), kMemory) {}

  View Make(DType dtype, int64_t rows, int64_t cols) {
    return arena_.Allocate(Purpose::kScratch, "t", dtype, rows, cols);
  }
  MutableOperand MakeCoded(int64_t rows, int64_t cols, Tile tile, int64_t stack = 1) {
    return {Make(DType::kE4M3, rows, cols), Make(DType::kF32, ScaleRows(tile, rows, stack), ScaleColumns(tile, cols)),
            tile, true};
  }

  // Every operation once, and what the host reads and writes in a step. Zeros all over: nothing here looks at results.
  void Run() {
    RunDense();
    RunExperts();
    RunEnds();
    std::array<float, 16> host{};
    backend_.CopyToHost(*stream_, row_.Columns(0, 16), host.data());
    backend_.CopyFromHost(*stream_, host.data(), row_.Columns(0, 16));
  }
  void Wait() { backend_.Synchronize(*stream_); }

 private:
  void RunDense() {
    Backend& b = backend_;
    Stream& s = *stream_;
    b.Zero(s, y_);
    b.Copy(s, x_, f32_);
    b.Add(s, x_, y_, y_);
    b.RmsNorm(s, {.x = x_, .delta = y_, .sum = y_, .gain = gain_, .eps = 1e-6, .y = y_, .inverse_rms = row_});
    b.RmsNorm(s, {.x = x_, .delta = {}, .sum = {}, .gain = gain_, .eps = 1e-6, .y = coded_, .inverse_rms = row_});
    b.RmsNormBackwardInput(s, {.dy = y_, .x = x_, .gain = gain_, .inverse_rms = row_, .add = x_, .dx = y_});
    b.RmsNormBackwardWeight(s, {.dy = y_, .x = x_, .inverse_rms = row_, .d_gain = gain_});
    b.Rope(s, {.x = x_, .cos_table = table_, .sin_table = table_, .positions = ids_});
    b.Quantize(s, {x_, coded_});
    b.Quantize(s, {x_, by_tokens_});
    b.Quantize(s, {weight_, coded_weight_});
    b.Dequantize(s, coded_, y_);
    b.Gemm(s, GemmLayout::kNT, x_, weight_, y_);
    b.Gemm(s, GemmLayout::kNN, x_, weight_, y_);
    b.Gemm(s, GemmLayout::kTN, x_, y_, d_weight_, true);
    b.Gemm(s, GemmLayout::kNT, coded_, coded_weight_, y_);
    const AttentionArgs attention = {
        .shape = shape_, .scale = 1, .q = q_, .kv = kv_, .k_rope = k_rope_, .first_visible = {}};
    b.AttentionForward(s, attention, out_, lse_, workspace_);
    b.AttentionBackward(s, attention,
                        {.out = out_, .log_sum_exp = lse_, .d_out = out_, .d_q = q_, .d_kv = kv_, .d_k_rope = k_rope_},
                        workspace_);
  }

  void RunExperts() {
    Backend& b = backend_;
    Stream& s = *stream_;
    const GateArgs gate = {.logits = logits_, .bias = {}, .groups = 4, .groups_kept = 2, .chosen = kChosen};
    b.Gate(s, gate, {scores_, experts_, weights_, counts_});
    b.SequenceBalance(s, {.scores = scores_,
                          .sequence_length = kTokens / 2,
                          .chosen = kChosen,
                          .loss_scale = 1,
                          .loss = row_.Columns(0, 2),
                          .d_scores = logits_});
    b.GateBackward(
        s, gate,
        {.scores = scores_, .experts = experts_, .d_weights = weights_, .d_scores = logits_, .d_logits = logits_});
    b.PlanDispatch(s, {experts_, kExperts, offsets_, row_token_, row_slot_, slot_row_});
    b.GatherRows(s, x_, row_token_, offsets_, rows_);
    b.GatherRows(s, coded_, row_token_, offsets_, coded_rows_);
    b.GatherChosen(s, weights_, row_slot_, offsets_, row_values_);
    const Segments segments = {offsets_, kExperts, kRows};
    b.GroupedGemm(s, GemmLayout::kNT, segments, rows_, stack_, gate_up_);
    b.GroupedGemm(s, GemmLayout::kNT, segments, coded_rows_, coded_stack_, gate_up_);
    b.GroupedGemm(s, GemmLayout::kTN, segments, rows_, gate_up_, d_stack_, true);
    const SwiGluArgs swiglu = {.gate_up = gate_up_, .row_weight = row_values_, .offsets = offsets_};
    b.SwiGlu(s, swiglu, rows_);
    b.SwiGlu(s, swiglu, coded_rows_);
    b.SwiGluBackward(s, swiglu, rows_, gate_up_, row_values_);
    b.ScatterChosen(s, row_values_, slot_row_, weights_);
    b.CombineRows(s, {.y = rows_, .slot_row = slot_row_, .experts = experts_, .experts_per_group = 4, .base = x_}, y_);
  }

  void RunEnds() {
    Backend& b = backend_;
    Stream& s = *stream_;
    b.Embedding(s, ids_, vocabulary_, y_);
    b.EmbeddingBackward(s, ids_, y_, d_vocabulary_);
    b.CrossEntropy(
        s,
        {.logits = vocabulary_logits_, .targets = ids_, .grad_scale = 1, .loss = row_, .d_logits = vocabulary_logits_});
    b.SumRows(s, row_, sum_);
    b.SquaredNorm(s, d_weight_, sum_);
    b.AdamW(s, {.master = master_, .grad = d_weight_, .m = m_, .v = v_, .compute = weight_});
    b.Ema(s, master_, 0.9, d_weight_);
  }

  Backend& backend_;
  const std::unique_ptr<Stream> stream_;
  const std::unique_ptr<Memory> memory_;
  Arena arena_;
  const View x_ = Make(DType::kBF16, kTokens, kWidth), y_ = Make(DType::kBF16, kTokens, kWidth);
  const View f32_ = Make(DType::kF32, kTokens, kWidth), gain_ = Make(DType::kF32, 1, kWidth);
  const View row_ = Make(DType::kF32, 1, kTokens), ids_ = Make(DType::kI32, 1, kTokens);
  const View table_ = Make(DType::kF32, 8, 32), sum_ = Make(DType::kF64, 1, 1);
  const View weight_ = Make(DType::kBF16, kWidth, kWidth), d_weight_ = Make(DType::kF32, kWidth, kWidth);
  const View master_ = Make(DType::kF32, kWidth, kWidth), m_ = Make(DType::kBF16, kWidth, kWidth);
  const View v_ = Make(DType::kBF16, kWidth, kWidth);
  const MutableOperand coded_ = MakeCoded(kTokens, kWidth, {1, 128}), by_tokens_ = MakeCoded(kTokens, kWidth, {128, 1});
  const MutableOperand coded_weight_ = MakeCoded(kWidth, kWidth, {128, 128});
  const AttentionShape shape_ = {
      .tokens = kTokens, .sequence_length = kTokens / 2, .heads = 2, .nope_dim = 64, .rope_dim = 32, .value_dim = 64};
  const View q_ = Make(DType::kBF16, kTokens, 2 * 96), kv_ = Make(DType::kBF16, kTokens, 2 * 128);
  const View k_rope_ = Make(DType::kBF16, kTokens, 32), out_ = Make(DType::kBF16, kTokens, 2 * 64);
  const View lse_ = Make(DType::kF32, kTokens, 2);
  const View workspace_ =
      Make(DType::kU8, 1,
           std::max(backend_.AttentionWorkspaceBytes(shape_, false), backend_.AttentionWorkspaceBytes(shape_, true)));
  const View logits_ = Make(DType::kF32, kTokens, kExperts), scores_ = Make(DType::kF32, kTokens, kExperts);
  const View experts_ = Make(DType::kI32, kTokens, kChosen), weights_ = Make(DType::kF32, kTokens, kChosen);
  const View counts_ = Make(DType::kI64, 1, kExperts), offsets_ = Make(DType::kI32, 1, kExperts + 1);
  const View row_token_ = Make(DType::kI32, 1, kRows), row_slot_ = Make(DType::kI32, 1, kRows);
  const View slot_row_ = Make(DType::kI32, kTokens, kChosen), row_values_ = Make(DType::kF32, 1, kRows);
  const View rows_ = Make(DType::kBF16, kRows, kWidth), gate_up_ = Make(DType::kBF16, kRows, 2 * kWidth);
  const MutableOperand coded_rows_ = MakeCoded(kRows, kWidth, {1, 128});
  const View stack_ = Make(DType::kBF16, kExperts * 2 * kWidth, kWidth);
  const MutableOperand coded_stack_ = MakeCoded(kExperts * 2 * kWidth, kWidth, {128, 128}, kExperts);
  const View d_stack_ = Make(DType::kF32, kExperts* kWidth, 2 * kWidth);
  const View vocabulary_ = Make(DType::kBF16, kVocabulary, kWidth),
             d_vocabulary_ = Make(DType::kF32, kVocabulary, kWidth);
  const View vocabulary_logits_ = Make(DType::kF32, kTokens, kVocabulary);
};

TEST(CudaHotPathTest, OperationsNeitherAllocateNorWait) {
  const absl::StatusOr<Backend*> cuda = CudaForTests();
  SKIP_WITHOUT_GPU(cuda.status());
  Layer layer(**cuda);
  layer.Run();  // the first time libraries choose algorithms
  layer.Wait();
  const int64_t allocations = Counters().allocations, waits = Counters().waits;
  EXPECT_GT(allocations, 0);  // the arena's
  EXPECT_GT(waits, 0);        // that of Wait
  layer.Run();
  EXPECT_EQ(Counters().allocations, allocations);
  EXPECT_EQ(Counters().waits, waits);
  layer.Wait();
}

}  // namespace
}  // namespace shoestring
