// The suite of products over the GPU of this machine, with larger cases beside the small ones; skipped without a GPU.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/cuda_handles.h"
#include "kernels/cuda_module.h"
#include "tests/kernels/cuda/cuda_for_tests.h"
#include "tests/kernels/products_suite.h"

namespace shoestring {
namespace {

// Tensors of the host on the device for one call: whole extents, gaps between rows included, each in memory of its own.
class Moved {
 public:
  ~Moved() {
    for (const Block& block : blocks_) {
      if (!block.written) continue;
      CUDA_CHECK(cudaMemcpy(block.host, block.device.get(), block.bytes, cudaMemcpyDeviceToHost));
    }
  }
  View Out(const View& x) { return View(Move(x, x.data), x.dtype, x.rows, x.cols, x.stride); }
  ConstView In(const ConstView& x) {
    if (!x) return x;
    return ConstView(Move(x, nullptr), x.dtype, x.rows, x.cols, x.stride);
  }
  Operand In(const Operand& x) {
    Operand moved = x;
    moved.values = In(x.values);
    moved.scales = In(x.scales);
    return moved;
  }

 private:
  struct Block {
    DeviceBytes device;
    std::byte* host;
    int64_t bytes;
    bool written;
  };
  std::byte* Move(const ConstView& x, std::byte* host) {
    const int64_t bytes = std::max<int64_t>(1, BytesOf(x.dtype, (x.rows - 1) * x.stride + x.cols));
    blocks_.push_back({TakeDeviceBytes(bytes), host, bytes, host != nullptr});
    CUDA_CHECK(cudaMemcpy(blocks_.back().device.get(), x.data, bytes, cudaMemcpyHostToDevice));
    return static_cast<std::byte*>(blocks_.back().device.get());
  }
  std::vector<Block> blocks_;
};

class GpuRunner final : public ProductRunner {
 public:
  explicit GpuRunner(std::unique_ptr<Backend> backend)
      : backend_(std::move(backend)), stream_(backend_->MakeStream()) {}

  void Multiply(const ProductCase& c, const Operand& a, const Operand& b, View out) override {
    Moved moved;
    const Operand left = moved.In(a), right = moved.In(b);
    const View result = moved.Out(out);
    if (c.groups() == 0) {
      backend_->Gemm(*stream_, c.layout, left, right, result, c.accumulate, c.how);
    } else {
      const auto* bytes = reinterpret_cast<const std::byte*>(c.offsets.data());
      const ConstView offsets = moved.In(ConstView(bytes, DType::kI32, 1, c.groups() + 1));
      backend_->GroupedGemm(*stream_, c.layout, {offsets, c.groups(), a.values.rows}, left, right, result, c.accumulate,
                            c.how);
    }
    backend_->Synchronize(*stream_);
  }
  int64_t AttentionWorkspaceBytes(const AttentionShape& shape, bool backward) override {
    return backend_->AttentionWorkspaceBytes(shape, backward);
  }
  void AttentionForward(const AttentionArgs& args, View out, View log_sum_exp, View workspace) override {
    Moved moved;
    const AttentionArgs on_device = MoveArgs(moved, args);
    backend_->AttentionForward(*stream_, on_device, moved.Out(out), moved.Out(log_sum_exp), moved.Out(workspace));
    backend_->Synchronize(*stream_);
  }
  void AttentionBackward(const AttentionArgs& args, const AttentionBackwardArgs& grads, View workspace) override {
    Moved moved;
    const AttentionArgs on_device = MoveArgs(moved, args);
    const AttentionBackwardArgs to = {moved.In(grads.out),  moved.In(grads.log_sum_exp), moved.In(grads.d_out),
                                      moved.Out(grads.d_q), moved.Out(grads.d_kv),       moved.Out(grads.d_k_rope)};
    backend_->AttentionBackward(*stream_, on_device, to, moved.Out(workspace));
    backend_->Synchronize(*stream_);
  }
  bool exact() const override { return false; }

 private:
  static AttentionArgs MoveArgs(Moved& moved, const AttentionArgs& args) {
    AttentionArgs on_device = args;
    on_device.q = moved.In(args.q);
    on_device.kv = moved.In(args.kv);
    on_device.k_rope = moved.In(args.k_rope);
    on_device.first_visible = moved.In(args.first_visible);
    return on_device;
  }
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
};

class ProductsCudaTest : public testing::Test {
 protected:
  void SetUp() override {
    // In the folder it was built in; in a bundle, where the program looks by itself.
    const std::string built = SHOESTRING_CUDA_MODULE;
    const auto module = CudaModule::Open({.module = std::filesystem::exists(built) ? built : "", .directories = {}});
    ASSERT_TRUE(module.ok()) << module.status();
    auto backend = module->MakeBackend({.device = 0, .workspace_bytes = int64_t{64} << 20});
    SKIP_WITHOUT_GPU(backend.status());
    runner_ = std::make_unique<GpuRunner>(*std::move(backend));
  }
  std::unique_ptr<GpuRunner> runner_;
};

TEST_F(ProductsCudaTest, Fp8) {
  for (const ProductCase& c : Fp8Cases()) ExpectFp8Product(*runner_, c);
}

// Many tiles, stages that wrap around, several waves of blocks.
TEST_F(ProductsCudaTest, Fp8Large) {
  using enum GemmLayout;
  const std::vector<int32_t> offsets = {0, 513, 513, 1100, 1228, 2048};
  ExpectFp8Product(*runner_, {kNT, 2048, 1536, 2048, offsets, 0, DType::kE4M3, DType::kBF16});
  ExpectFp8Product(*runner_, {kNN, 2048, 1536, 2048, offsets, 0, DType::kE4M3, DType::kBF16});
  ExpectFp8Product(*runner_, {kTN, 1536, 2048, 2048, offsets, 0, DType::kE4M3, DType::kF32, true});
  for (const GemmLayout layout : {kNT, kNN, kTN}) ExpectFp8Product(*runner_, {layout, 1024, 2112, 1152});
}

TEST_F(ProductsCudaTest, BF16AndF32) {
  for (const ProductCase& c : PlainTypeCases()) ASSERT_NO_FATAL_FAILURE(ExpectProduct(*runner_, c));
}

TEST_F(ProductsCudaTest, BF16Large) {
  using enum GemmLayout;
  const std::vector<int32_t> offsets = {0, 300, 300, 555, 900};
  ASSERT_NO_FATAL_FAILURE(ExpectProduct(*runner_, {kNT, 900, 640, 512, offsets, 0, DType::kBF16, DType::kBF16}));
  ASSERT_NO_FATAL_FAILURE(ExpectProduct(*runner_, {kNN, 900, 640, 512, offsets, 0, DType::kBF16, DType::kBF16}));
  ASSERT_NO_FATAL_FAILURE(ExpectProduct(*runner_, {kTN, 512, 640, 900, offsets, 0, DType::kBF16, DType::kF32, true}));
}

TEST_F(ProductsCudaTest, NeighboursDoNotLeak) {
  for (const GemmLayout layout : {GemmLayout::kNT, GemmLayout::kNN, GemmLayout::kTN}) {
    for (const DType type : {DType::kBF16, DType::kF32}) ExpectNoLeaks(*runner_, layout, type);
  }
}

TEST_F(ProductsCudaTest, Attention) {
  std::vector<AttentionCase> cases = AttentionCases();
  // cuDNN's head dimensions: V3's, and equal ones.
  cases.push_back({{2 * 192, 192, 3, 128, 64, 128}, DType::kBF16, false, 6e-2});
  cases.push_back({{2 * 160, 160, 3, 96, 32, 128}, DType::kBF16, false, 6e-2});
  cases.push_back({{1 * 192, 192, 2, 128, 64, 128}, DType::kBF16, true, 6e-2});
  for (const AttentionCase& c : cases) ASSERT_NO_FATAL_FAILURE(ExpectAttention(*runner_, c));
}

// The same bits each time: nothing is added in an order that chance decides.
TEST_F(ProductsCudaTest, TwoRunsGiveTheSameBits) {
  const std::vector<int32_t> offsets = {0, 513, 513, 1100, 1228, 2048};
  for (const bool grouped : {true, false}) {
    ProductCase c = {GemmLayout::kTN, 384, 512, 2048, {}, 0, DType::kBF16};
    if (grouped) c.offsets = offsets;
    HostMatrix a(DType::kBF16, c.k, c.m, 0), b(DType::kBF16, c.k, c.n, 0);
    a.Random(1);
    b.Random(2);
    const int64_t rows = grouped ? c.groups() * c.m : c.m;
    HostMatrix first(DType::kF32, rows, c.n, 0);
    runner_->Multiply(c, a.view(), b.view(), first.view());
    for (int run = 0; run < 3; ++run) {
      HostMatrix again(DType::kF32, rows, c.n, 0);
      runner_->Multiply(c, a.view(), b.view(), again.view());
      EXPECT_TRUE(again.SameBits(first));
    }
  }
}

}  // namespace
}  // namespace shoestring
