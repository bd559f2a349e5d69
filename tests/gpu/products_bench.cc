// Rates of the GPU's matrix products and attention at DeepSeek-V3's shapes, beside the dense library's in the same run.
//
//   products_bench [--long]      with the libshoestring_cuda.so beside it or in ../lib
//
// One line a product: what, milliseconds, TFLOP/s, and the ratio to dense cuBLASLt FP8 (or, of BF16, BF16) of as many
// FLOPs. Times are wall time over many calls in a row, so they hold the copies that a layout needs. Exit codes: 0 done;
// 64 usage; 69 no GPU.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_handles.h"
#include "kernels/cuda_module.h"

namespace shoestring {
namespace {

constexpr Tile kByChannels = {1, 128}, kByTokens = {128, 1}, kBlocks = {128, 128};

// Device memory that all tensors of a product are carved from.
class Pool {
 public:
  explicit Pool(int64_t bytes) : bytes_(bytes), memory_(TakeDeviceBytes(bytes)) { CHECK(static_cast<bool>(memory_)); }
  void Reset() { used_ = 0; }
  // Random bytes: the rates of tensor cores depend on how many bits flip.
  View Take(DType dtype, int64_t rows, int64_t cols) {
    const int64_t size = (BytesOf(dtype, rows * cols) + 255) / 256 * 256;
    CHECK_LE(used_ + size, bytes_);
    auto* const data = static_cast<std::byte*>(memory_.get()) + used_;
    used_ += size;
    if (dtype == DType::kF32) {
      CUDA_CHECK(cudaMemset(data, 0, size));
      return View(data, dtype, rows, cols);
    }
    static const std::vector<uint64_t>* const noise = [] {
      auto* words = new std::vector<uint64_t>(1 << 18);
      const Rng rng(1, RngPurpose::kTest, 0);
      // Exponents near one in bf16 and in both FP8 formats.
      for (size_t i = 0; i < words->size(); ++i)
        (*words)[i] = (rng.Bits64(i) & 0x87ff87ff87ff87ffull) | 0x3000300030003000ull;
      return words;
    }();
    const int64_t chunk = static_cast<int64_t>(noise->size()) * 8;
    for (int64_t at = 0; at < size; at += chunk) {
      CUDA_CHECK(cudaMemcpy(data + at, noise->data(), std::min(chunk, size - at), cudaMemcpyHostToDevice));
    }
    return View(data, dtype, rows, cols);
  }
  View Scales(int64_t rows, int64_t cols) {
    const View view = Take(DType::kF32, rows, cols);
    const std::vector<float> ones(rows * cols, 1.0f / 64);
    CUDA_CHECK(cudaMemcpy(view.data, ones.data(), ones.size() * 4, cudaMemcpyHostToDevice));
    return view;
  }

 private:
  int64_t bytes_;
  int64_t used_ = 0;
  DeviceBytes memory_;
};

struct Shape {
  const char* name;
  int64_t out, in;
};

class Bench {
 public:
  Bench(Backend& backend, bool quick) : backend_(backend), stream_(backend.MakeStream()), quick_(quick) {}

  void Experts(const Shape& shape, const std::vector<int32_t>& counts, const char* what) {
    const auto groups = static_cast<int64_t>(counts.size());
    std::vector<int32_t> offsets = {0};
    for (const int32_t count : counts) offsets.push_back(offsets.back() + count);
    const int64_t tokens = offsets.back();
    for (const GemmLayout layout : {GemmLayout::kNT, GemmLayout::kNN, GemmLayout::kTN}) {
      for (const bool fp8 : {true, false}) {
        const double dense = Product(layout, fp8, tokens, shape, 0, {});
        const double grouped = Product(layout, fp8, tokens, shape, groups, offsets);
        Print(std::string("experts ") + what + " " + shape.name, layout, fp8, 2.0 * tokens * shape.out * shape.in,
              grouped, dense);
      }
    }
  }

  void Dense(const Shape& shape, int64_t tokens) {
    for (const GemmLayout layout : {GemmLayout::kNT, GemmLayout::kNN, GemmLayout::kTN}) {
      for (const bool fp8 : {true, false}) {
        const double seconds = Product(layout, fp8, tokens, shape, 0, {});
        Print(std::string("dense ") + std::to_string(tokens) + " " + shape.name, layout, fp8,
              2.0 * tokens * shape.out * shape.in, seconds, 0);
      }
    }
  }

  void Attention(const AttentionShape& s) {
    pool_.Reset();
    const int64_t key = s.nope_dim + s.rope_dim, kv_cols = s.heads * (s.nope_dim + s.value_dim);
    AttentionArgs args;
    args.shape = s;
    args.scale = 0.07;
    args.q = pool_.Take(DType::kBF16, s.tokens, s.heads * key);
    args.kv = pool_.Take(DType::kBF16, s.tokens, kv_cols);
    args.k_rope = pool_.Take(DType::kBF16, s.tokens, s.rope_dim);
    const View out = pool_.Take(DType::kBF16, s.tokens, s.heads * s.value_dim);
    const View d_out = pool_.Take(DType::kBF16, s.tokens, s.heads * s.value_dim);
    const View lse = pool_.Take(DType::kF32, s.tokens, s.heads);
    const View d_q = pool_.Take(DType::kBF16, s.tokens, s.heads * key);
    const View d_kv = pool_.Take(DType::kBF16, s.tokens, kv_cols);
    const View d_k_rope = pool_.Take(DType::kBF16, s.tokens, s.rope_dim);
    const int64_t bytes =
        std::max(backend_.AttentionWorkspaceBytes(s, false), backend_.AttentionWorkspaceBytes(s, true));
    const View workspace = pool_.Take(DType::kU8, 1, std::max<int64_t>(bytes, 256));
    const double forward = Seconds([&] { backend_.AttentionForward(*stream_, args, out, lse, workspace); });
    const double backward = Seconds([&] {
      backend_.AttentionBackward(*stream_, args, {out, lse, d_out, d_q, d_kv, d_k_rope}, workspace);
    });
    const double flops = 1.0 * s.tokens * s.sequence_length * s.heads * (key + s.value_dim);
    std::printf("attention S %lld H %lld %lld/%lld      forward  %9.3f ms %8.1f TFLOP/s\n",
                static_cast<long long>(s.sequence_length), static_cast<long long>(s.heads), static_cast<long long>(key),
                static_cast<long long>(s.value_dim), forward * 1e3, flops / forward * 1e-12);
    std::printf("attention S %lld H %lld %lld/%lld      backward %9.3f ms %8.1f TFLOP/s  workspace %.1f MB\n",
                static_cast<long long>(s.sequence_length), static_cast<long long>(s.heads), static_cast<long long>(key),
                static_cast<long long>(s.value_dim), backward * 1e3, 2 * flops / backward * 1e-12,
                static_cast<double>(bytes) * 1e-6);
  }

 private:
  // One of the three products of a layer [out, in] over so many tokens; `offsets` empty: dense.
  double Product(GemmLayout layout, bool fp8, int64_t tokens, const Shape& w, int64_t groups,
                 const std::vector<int32_t>& offsets) {
    pool_.Reset();
    const bool by_tokens = layout == GemmLayout::kTN;
    const int64_t stack = std::max<int64_t>(groups, 1);
    const DType type = fp8 ? DType::kE4M3 : DType::kBF16;
    const int64_t a_cols = layout == GemmLayout::kNT ? w.in : w.out;
    const Operand a = TokenOperand(type, tokens, a_cols, by_tokens, groups);
    const Operand b = by_tokens ? TokenOperand(type, tokens, w.in, true, groups) : WeightOperand(type, stack, w);
    const View c = by_tokens ? pool_.Take(DType::kF32, stack * w.out, w.in)
                             : pool_.Take(DType::kBF16, tokens, layout == GemmLayout::kNT ? w.out : w.in);
    if (groups == 0) {
      return Seconds([&] { backend_.Gemm(*stream_, layout, a, b, c, by_tokens); });
    }
    const View on_device = pool_.Take(DType::kI32, 1, groups + 1);
    CUDA_CHECK(cudaMemcpy(on_device.data, offsets.data(), offsets.size() * 4, cudaMemcpyHostToDevice));
    const Segments segments = {on_device, groups, tokens};
    return Seconds([&] { backend_.GroupedGemm(*stream_, layout, segments, a, b, c, by_tokens); });
  }

  Operand TokenOperand(DType type, int64_t tokens, int64_t cols, bool by_tokens, int64_t groups) {
    const View values = pool_.Take(type, tokens, cols);
    if (!IsQuantised(type)) return values;
    const Tile tile = by_tokens ? kByTokens : kByChannels;
    const int64_t rows = !by_tokens   ? tokens
                         : groups > 0 ? SegmentScaleRows(tile, tokens, groups)
                                      : ScaleRows(tile, tokens);
    return {values, pool_.Scales(rows, ScaleColumns(tile, cols)), tile};
  }
  Operand WeightOperand(DType type, int64_t stack, const Shape& w) {
    const View values = pool_.Take(type, stack * w.out, w.in);
    if (!IsQuantised(type)) return values;
    return {values, pool_.Scales(ScaleRows(kBlocks, stack * w.out, stack), ScaleColumns(kBlocks, w.in)), kBlocks};
  }

  // Of one call, in a row of them that takes a while.
  double Seconds(const std::function<void()>& call) {
    using Clock = std::chrono::steady_clock;
    const double least = quick_ ? 0.01 : 0.1;
    call();
    backend_.Synchronize(*stream_);
    for (int64_t calls = 2;; calls *= 2) {
      const auto start = Clock::now();
      for (int64_t i = 0; i < calls; ++i) call();
      backend_.Synchronize(*stream_);
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (seconds >= least) return seconds / static_cast<double>(calls);
    }
  }

  static void Print(const std::string& what, GemmLayout layout, bool fp8, double flops, double seconds, double dense) {
    const char* name = layout == GemmLayout::kNT ? "NT" : layout == GemmLayout::kNN ? "NN" : "TN";
    std::printf("%-40s %s %s %9.3f ms %8.1f TFLOP/s", what.c_str(), fp8 ? "fp8 " : "bf16", name, seconds * 1e3,
                flops / seconds * 1e-12);
    if (dense > 0) std::printf("  %.2f of dense %8.1f", dense / seconds, flops / dense * 1e-12);
    std::printf("\n");
    std::fflush(stdout);
  }

  Backend& backend_;
  std::unique_ptr<Stream> stream_;
  bool quick_;
  Pool pool_{int64_t{24} << 30};
};

int Run(bool quick) {
  const auto module = CudaModule::Open({.module = "", .directories = {}});
  if (!module.ok()) {
    std::fprintf(stderr, "products_bench: %s\n", std::string(module.status().message()).c_str());
    return 69;
  }
  const auto backend = module->MakeBackend({.device = 0, .workspace_bytes = int64_t{2} << 30});
  if (!backend.ok()) {
    std::fprintf(stderr, "products_bench: %s\n", std::string(backend.status().message()).c_str());
    return 69;
  }
  Bench bench(**backend, quick);
  const Shape gate_up = {"4096x7168", 4096, 7168}, down = {"7168x2048", 7168, 2048};
  const std::vector<int32_t> full(8, 8192);
  const std::vector<int32_t> ragged = {96, 160, 128, 40, 216, 127, 129, 128};  // 128 on average
  for (const Shape& shape : {gate_up, down}) {
    bench.Experts(shape, full, "8x8192");
    bench.Experts(shape, ragged, "8x~128");
  }
  for (const Shape& shape :
       {Shape{"2112x7168", 2112, 7168}, Shape{"24576x1536", 24576, 1536}, Shape{"32768x512", 32768, 512},
        Shape{"7168x16384", 7168, 16384}, Shape{"36864x7168", 36864, 7168}, Shape{"7168x18432", 7168, 18432}}) {
    bench.Dense(shape, 4096);
  }
  bench.Attention({4096, 4096, 128, 128, 64, 128});
  return 0;
}

}  // namespace
}  // namespace shoestring

int main(int argc, char** argv) {
  const bool all = argc == 2 && std::strcmp(argv[1], "--long") == 0;
  if (argc > 1 && !all) {
    std::fprintf(stderr, "usage: products_bench [--long]\n");
    return 64;
  }
  return shoestring::Run(!all);
}
