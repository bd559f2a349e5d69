// The suite of products over the GPU's own sources, run as fibers on the CPU: shows wrong addresses, layouts, barriers
// and roundings; not races, nor speed.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/gemm.h"
#include "tests/kernels/products_suite.h"

namespace shoestring {
namespace {

CudaContext Context(int64_t workspace_bytes) {
  CudaContext context;
  context.sm_count = 3;
  context.workspace_bytes = workspace_bytes;
  return context;
}

class EmulatedRunner final : public ProductRunner {
 public:
  void Multiply(const ProductCase& c, const Operand& a, const Operand& b, View out) override {
    const CudaContext context = Context(c.workspace_bytes);
    CudaStream stream(context);
    CudaGemm gemm(context);
    if (c.groups() == 0) return gemm.Run(stream, c.layout, a, b, out, c.accumulate, c.how);
    const auto* bytes = reinterpret_cast<const std::byte*>(c.offsets.data());
    const Segments segments = {ConstView(bytes, DType::kI32, 1, c.groups() + 1), c.groups(), a.values.rows};
    gemm.RunGrouped(stream, c.layout, segments, a, b, out, c.accumulate, c.how);
  }
  int64_t AttentionWorkspaceBytes(const AttentionShape& shape, bool backward) override {
    return attention_.WorkspaceBytes(shape, backward);
  }
  void AttentionForward(const AttentionArgs& args, View out, View log_sum_exp, View workspace) override {
    attention_.Forward(stream_, args, out, log_sum_exp, workspace);
  }
  void AttentionBackward(const AttentionArgs& args, const AttentionBackwardArgs& grads, View workspace) override {
    attention_.Backward(stream_, args, grads, workspace);
  }
  bool exact() const override { return true; }  // emulated tensor cores sum in FP32, in order

 private:
  const CudaContext context_ = Context(1 << 20);
  CudaStream stream_{context_};
  CudaAttention attention_{context_};
};

TEST(ProductsEmulatedTest, Fp8) {
  EmulatedRunner runner;
  for (const ProductCase& c : Fp8Cases()) ExpectFp8Product(runner, c);
}

TEST(ProductsEmulatedTest, BF16AndF32) {
  EmulatedRunner runner;
  for (const ProductCase& c : PlainTypeCases()) ASSERT_NO_FATAL_FAILURE(ExpectProduct(runner, c));
}

TEST(ProductsEmulatedTest, NeighboursDoNotLeak) {
  EmulatedRunner runner;
  for (const GemmLayout layout : {GemmLayout::kNT, GemmLayout::kNN, GemmLayout::kTN}) {
    for (const DType type : {DType::kBF16, DType::kF32}) ExpectNoLeaks(runner, layout, type);
  }
}

TEST(ProductsEmulatedTest, Attention) {
  EmulatedRunner runner;
  for (const AttentionCase& c : AttentionCases()) ASSERT_NO_FATAL_FAILURE(ExpectAttention(runner, c));
}

}  // namespace
}  // namespace shoestring
