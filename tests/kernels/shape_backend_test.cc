// Tests of what all backends share (checks that abort, counters) and of the backend that only measures.
#include "kernels/shape_backend.h"

#include "gtest/gtest.h"
#include "kernels/arena.h"
#include "kernels/cpu/cpu_backend.h"

namespace shoestring {
namespace {

class ShapeBackendTest : public testing::Test {
 protected:
  View Make(DType dtype, int64_t rows, int64_t cols) {
    return arena_.Allocate(Purpose::kScratch, "t", dtype, rows, cols);
  }
  View F32(int64_t rows, int64_t cols) { return Make(DType::kF32, rows, cols); }
  View BF(int64_t rows, int64_t cols) { return Make(DType::kBF16, rows, cols); }
  View I32(int64_t rows, int64_t cols) { return Make(DType::kI32, rows, cols); }

  Arena arena_ = Arena::Measuring();
  std::unique_ptr<Backend> cpu_ = MakeCpuBackend({});
  std::unique_ptr<Backend> shape_ = MakeShapeBackend(*cpu_);
  std::unique_ptr<Stream> stream_ = shape_->MakeStream();
};

TEST_F(ShapeBackendTest, CountsProductsOfEveryLayout) {
  shape_->Gemm(*stream_, GemmLayout::kNT, BF(3, 7), BF(5, 7), BF(3, 5));
  EXPECT_EQ(shape_->work().gemm_flops, 2 * 3 * 5 * 7);
  shape_->Gemm(*stream_, GemmLayout::kNN, BF(3, 5), BF(5, 7), F32(3, 7));
  EXPECT_EQ(shape_->work().gemm_flops, 4 * 3 * 5 * 7);
  shape_->Gemm(*stream_, GemmLayout::kTN, BF(3, 5), BF(3, 7), F32(5, 7), true);
  EXPECT_EQ(shape_->work().gemm_flops, 6 * 3 * 5 * 7);
  shape_->ResetWork();
  EXPECT_EQ(shape_->work().gemm_flops, 0);
}

TEST_F(ShapeBackendTest, CountsGroupedProductsAtTheirRows) {
  const Segments segments = {I32(1, 5), 4, 30};
  shape_->GroupedGemm(*stream_, GemmLayout::kNT, segments, BF(30, 7), BF(4 * 5, 7), BF(30, 5));
  EXPECT_EQ(shape_->work().gemm_flops, 2 * 30 * 5 * 7);
  shape_->GroupedGemm(*stream_, GemmLayout::kNN, segments, BF(30, 5), BF(4 * 5, 7), BF(30, 7));
  EXPECT_EQ(shape_->work().gemm_flops, 4 * 30 * 5 * 7);
  shape_->GroupedGemm(*stream_, GemmLayout::kTN, segments, BF(30, 5), BF(30, 7), F32(4 * 5, 7), true);
  EXPECT_EQ(shape_->work().gemm_flops, 6 * 30 * 5 * 7);
}

TEST_F(ShapeBackendTest, CountsGroupedProductsAtTheRowsThatTheHostKnows) {
  for (const int64_t rows : {0, 11, 30}) {
    shape_->ResetWork();
    const Segments segments = {I32(1, 5), 4, 30, rows};
    shape_->GroupedGemm(*stream_, GemmLayout::kNT, segments, BF(30, 7), BF(4 * 5, 7), BF(30, 5));
    EXPECT_EQ(shape_->work().gemm_flops, 2 * rows * 5 * 7);
    shape_->GroupedGemm(*stream_, GemmLayout::kTN, segments, BF(30, 5), BF(30, 7), F32(4 * 5, 7), true);
    EXPECT_EQ(shape_->work().gemm_flops, 4 * rows * 5 * 7);
  }
}

TEST_F(ShapeBackendTest, CountsHalfOfAttention) {
  const AttentionShape s = {
      .tokens = 12, .sequence_length = 6, .heads = 2, .nope_dim = 4, .rope_dim = 2, .value_dim = 3};
  const AttentionArgs args = {
      .shape = s, .scale = 1, .q = BF(12, 2 * 6), .kv = BF(12, 2 * 7), .k_rope = BF(12, 2), .first_visible = {}};
  const View workspace = Make(DType::kU8, 1, shape_->AttentionWorkspaceBytes(s, true));
  shape_->AttentionForward(*stream_, args, BF(12, 6), F32(12, 2), workspace);
  const int64_t forward = 2 * 2 * (2 * 6 * 6 * 6 + 2 * 6 * 6 * 3) / 2;  // sequences, heads, q k and p v, half
  EXPECT_EQ(shape_->work().attention_flops, forward);
  const AttentionBackwardArgs grads = {.out = BF(12, 6),
                                       .log_sum_exp = F32(12, 2),
                                       .d_out = BF(12, 6),
                                       .d_q = BF(12, 12),
                                       .d_kv = BF(12, 14),
                                       .d_k_rope = BF(12, 2)};
  shape_->AttentionBackward(*stream_, args, grads, workspace);
  EXPECT_EQ(shape_->work().attention_flops, 3 * forward);
}

TEST_F(ShapeBackendTest, TouchesNoTensorAndReadsZeros) {
  const View x = F32(1 << 20, 1 << 16);  // 256 GiB of addresses without memory
  shape_->Zero(*stream_, x);
  shape_->Add(*stream_, x, x, x);
  shape_->Copy(*stream_, x, BF(1 << 20, 1 << 16));
  shape_->AdamW(*stream_, {.master = x, .grad = x, .m = x, .v = x, .compute = x});
  double host[2] = {1, 2};
  shape_->CopyToHost(*stream_, Make(DType::kF64, 1, 2), host);
  shape_->CopyFromHost(*stream_, host, Make(DType::kF64, 1, 2));
  EXPECT_EQ(host[0], 0);
  EXPECT_EQ(host[1], 0);
}

using CheckDeathTest = ShapeBackendTest;

TEST_F(CheckDeathTest, WrongShapesAreNamed) {
  EXPECT_DEATH(shape_->Add(*stream_, BF(3, 4), BF(3, 5), BF(3, 4)), "Add: b is bf16 .3, 5., must be f32.bf16 .3, 4.");
  EXPECT_DEATH(shape_->Gemm(*stream_, GemmLayout::kNT, BF(3, 7), BF(5, 6), BF(3, 5)), "Gemm: b is bf16 .5, 6.");
  EXPECT_DEATH(shape_->Gemm(*stream_, GemmLayout::kNN, BF(3, 7), BF(7, 5), BF(5, 3)), "Gemm: c is bf16 .5, 3.");
  EXPECT_DEATH(shape_->GroupedGemm(*stream_, GemmLayout::kNT, {I32(1, 4), 4, 30}, BF(30, 7), BF(20, 7), BF(30, 5)),
               "segments.offsets is i32 .1, 4., must be i32 .1, 5.");
  EXPECT_DEATH(shape_->SwiGlu(*stream_, {.gate_up = BF(2, 8), .row_weight = {}, .offsets = {}}, BF(2, 3)),
               "SwiGlu: y is bf16 .2, 3.");
}

TEST_F(CheckDeathTest, WrongTypesAreNamed) {
  EXPECT_DEATH(shape_->Gemm(*stream_, GemmLayout::kNT, BF(3, 7), F32(5, 7), F32(3, 5)), "b is f32 .5, 7., must be");
  EXPECT_DEATH(shape_->Gemm(*stream_, GemmLayout::kTN, BF(7, 3), BF(7, 5), BF(3, 5), true),
               "c is bf16 .3, 5., must be f32 .3, 5.");
  EXPECT_DEATH(shape_->SumRows(*stream_, F32(1, 9), F32(1, 1)), "sum is f32 .1, 1., must be f64");
  EXPECT_DEATH(shape_->Copy(*stream_, I32(1, 2), F32(1, 2)), "y is f32 .1, 2., must be i32");
}

TEST_F(CheckDeathTest, Fp8NeedsScales) {
  const View values = Make(DType::kE4M3, 256, 256);
  EXPECT_DEATH(shape_->Gemm(*stream_, GemmLayout::kNT, values, values, F32(256, 256)), "a is e4m3 without scales");
  const Operand scaled(values, F32(256, 2), {1, 128});
  EXPECT_DEATH(shape_->Gemm(*stream_, GemmLayout::kNT, scaled, BF(256, 256), F32(256, 256)), "b is bf16");
  const Operand wrong(values, F32(256, 3), {1, 128});
  EXPECT_DEATH(shape_->Gemm(*stream_, GemmLayout::kNT, wrong, wrong, F32(256, 256)), "check failed");
}

TEST_F(CheckDeathTest, NullAndStridedTensorsAreRefused) {
  EXPECT_DEATH(shape_->Zero(*stream_, View(nullptr, DType::kF32, 2, 2)), "x is f32 .2, 2., null");
  const View strided = F32(8, 8).Columns(0, 4);
  EXPECT_DEATH(shape_->SquaredNorm(*stream_, strided, Make(DType::kF64, 1, 1)), "x must be contiguous");
}

TEST_F(CheckDeathTest, ImpossibleRoutersAreRefused) {
  GateArgs args = {.logits = F32(4, 12), .bias = {}, .groups = 5};
  const GateResult result = {F32(4, 12), I32(4, 1), F32(4, 1), Make(DType::kI64, 1, 12)};
  EXPECT_DEATH(shape_->Gate(*stream_, args, result), "groups must divide the experts");
  args.groups = 4;
  args.chosen = 4;
  EXPECT_DEATH(shape_->Gate(*stream_, args, result), "at most the experts of the kept groups");
}

}  // namespace
}  // namespace shoestring
