// Tests that the CPU backend hands matrix products and attention to their kernels rightly, strides and all, and that no
// operation allocates once it has run.
#include "kernels/cpu/cpu_backend.h"

#include "kernels/arena.h"
#include "tests/base/counting_heap.h"
#include "tests/kernels/reference/attention.h"
#include "tests/kernels/test_tensor.h"

namespace shoestring {
namespace {

using reference::Matrix;
using CpuBackendTest = OpTest;

// The plain product of two matrices in the given layout.
Matrix Product(GemmLayout layout, const Matrix& a, const Matrix& b) {
  const bool a_transposed = layout == GemmLayout::kTN, b_transposed = layout == GemmLayout::kNT;
  Matrix c(a_transposed ? a.cols : a.rows, b_transposed ? b.rows : b.cols);
  const int64_t k = a_transposed ? a.rows : a.cols;
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.cols; ++j) {
      for (int64_t p = 0; p < k; ++p) {
        c.at(i, j) += (a_transposed ? a.at(p, i) : a.at(i, p)) * (b_transposed ? b.at(j, p) : b.at(p, j));
      }
    }
  }
  return c;
}

Matrix RowsOf(const Matrix& x, int64_t first, int64_t end) {
  Matrix out(end - first, x.cols);
  std::copy_n(x.values.begin() + first * x.cols, out.values.size(), out.values.begin());
  return out;
}

Tolerance ProductTolerance(DType out) { return {out == DType::kBF16 ? 0x1p-8 : 1e-5, 1e-4}; }

TEST_P(CpuBackendTest, GemmOfStridedViews) {
  const int64_t m = 21, n = 37, k = 50;
  for (GemmLayout layout : {GemmLayout::kNT, GemmLayout::kNN, GemmLayout::kTN}) {
    const bool tn = layout == GemmLayout::kTN, nt = layout == GemmLayout::kNT;
    TestTensor a(act(), tn ? k : m, tn ? m : k, 3), b(act(), nt ? n : k, nt ? k : n, 5);
    TestTensor c(act(), m, n, 7), sum(DType::kF32, m, n, 2);
    a.Random(1);
    b.Random(2);
    sum.Random(3);
    Matrix want = Product(layout, a.matrix(), b.matrix());
    Matrix want_sum = sum.matrix();
    for (size_t i = 0; i < want.values.size(); ++i) want_sum.values[i] += want.values[i];
    Run({&c, &sum}, [&](Backend& backend, Stream& stream) {
      backend.Gemm(stream, layout, a, b, c);
      backend.Gemm(stream, layout, a, b, sum, true);
    });
    ExpectNear(c, want, ProductTolerance(act()), "c");
    ExpectNear(sum, want_sum, ProductTolerance(DType::kF32), "sum");
  }
}

TEST_P(CpuBackendTest, GroupedGemmOfStridedViews) {
  const int64_t ends[] = {0, 9, 9, 26, 31};  // the second group is empty; the last four rows are padding
  const int64_t groups = 4, rows = 35, n = 19, k = 24;
  TestTensor offsets(DType::kI32, 1, groups + 1), x(act(), rows, k, 3), w(act(), groups * n, k, 1);
  TestTensor y(act(), rows, n, 2), dx(act(), rows, k, 5), dw(DType::kF32, groups * n, k, 4), dw_sum(dw);
  offsets.Fill([&](int64_t, int64_t e) { return static_cast<double>(ends[e]); });
  x.Random(1);
  w.Random(2);
  dw_sum.Random(3);
  const Segments segments = {offsets, groups, rows};
  const Matrix sum_before = dw_sum.matrix();
  TestTensor dy(act(), rows, n);
  dy.Random(4);
  Run({&y, &dx, &dw, &dw_sum}, [&](Backend& backend, Stream& stream) {
    backend.GroupedGemm(stream, GemmLayout::kNT, segments, x, w, y);
    backend.GroupedGemm(stream, GemmLayout::kNN, segments, dy, w, dx);
    backend.GroupedGemm(stream, GemmLayout::kTN, segments, dy, x, dw);
    backend.GroupedGemm(stream, GemmLayout::kTN, segments, dy, x, dw_sum, true);
  });
  for (int64_t r = 0; r < rows; ++r) {
    EXPECT_EQ(std::isnan(y.at(r, 0)), r >= ends[groups]);  // padding keeps its poison
    EXPECT_EQ(std::isnan(dx.at(r, 0)), r >= ends[groups]);
  }
  Matrix want_y(rows, n), want_dx(rows, k), want_dw(groups * n, k);
  for (int64_t e = 0; e < groups; ++e) {
    const Matrix xs = RowsOf(x.matrix(), ends[e], ends[e + 1]), dys = RowsOf(dy.matrix(), ends[e], ends[e + 1]);
    const Matrix ws = RowsOf(w.matrix(), e * n, (e + 1) * n);
    const auto put = [](const Matrix& part, int64_t first, Matrix& whole) {
      std::copy(part.values.begin(), part.values.end(), whole.values.begin() + first * whole.cols);
    };
    put(Product(GemmLayout::kNT, xs, ws), ends[e], want_y);
    put(Product(GemmLayout::kNN, dys, ws), ends[e], want_dx);
    put(Product(GemmLayout::kTN, dys, xs), e * n, want_dw);
  }
  for (int64_t r = 0; r < ends[groups]; ++r) {
    for (int64_t j = 0; j < n; ++j) EXPECT_NEAR(y.at(r, j), want_y.at(r, j), 0.02 * std::abs(want_y.at(r, j)) + 1e-2);
    for (int64_t j = 0; j < k; ++j)
      EXPECT_NEAR(dx.at(r, j), want_dx.at(r, j), 0.02 * std::abs(want_dx.at(r, j)) + 1e-2);
  }
  ExpectNear(dw, want_dw, ProductTolerance(DType::kF32), "dw");
  for (size_t i = 0; i < want_dw.values.size(); ++i) want_dw.values[i] += sum_before.values[i];
  ExpectNear(dw_sum, want_dw, ProductTolerance(DType::kF32), "dw_sum");
}

struct alignas(64) Line {
  std::byte bytes[64];
};

TEST_P(CpuBackendTest, AttentionOfStridedViews) {
  const AttentionShape s = {
      .tokens = 24, .sequence_length = 12, .heads = 3, .nope_dim = 10, .rope_dim = 6, .value_dim = 9};
  TestTensor q(act(), 24, 3 * 16, 4), kv(act(), 24, 3 * 19, 6), k_rope(act(), 24, 6, 3), first(DType::kI32, 1, 24);
  TestTensor out(act(), 24, 27, 5), lse(DType::kF32, 24, 3, 1), d_out(act(), 24, 27, 2);
  TestTensor d_q(act(), 24, 48, 1), d_kv(act(), 24, 57, 7), d_k_rope(act(), 24, 6, 2);
  q.Random(1);
  kv.Random(2);
  k_rope.Random(3);
  d_out.Random(4);
  first.Fill([](int64_t, int64_t t) { return t % 12 >= 7 ? 7.0 : 0.0; });
  const AttentionArgs args = {.shape = s, .scale = 0.25, .q = q, .kv = kv, .k_rope = k_rope, .first_visible = first};
  Run({&out, &lse, &d_q, &d_kv, &d_k_rope}, [&](Backend& backend, Stream& stream) {
    const int64_t bytes = std::max(backend.AttentionWorkspaceBytes(s, false), backend.AttentionWorkspaceBytes(s, true));
    std::vector<Line> memory(bytes / 64 + 1);
    const View workspace(memory[0].bytes, DType::kU8, 1, static_cast<int64_t>(memory.size()) * 64);
    backend.AttentionForward(stream, args, out, lse, workspace);
    backend.AttentionBackward(
        stream, args, {.out = out, .log_sum_exp = lse, .d_out = d_out, .d_q = d_q, .d_kv = d_kv, .d_k_rope = d_k_rope},
        workspace);
  });
  reference::AttentionInput input = {.shape = s,
                                     .scale = 0.25,
                                     .q = q.matrix().values,
                                     .kv = kv.matrix().values,
                                     .k_rope = k_rope.matrix().values,
                                     .first_visible = {}};
  for (int64_t t = 0; t < 24; ++t) input.first_visible.push_back(static_cast<int32_t>(first.at(0, t)));
  const auto want = reference::Attention(input);
  const auto want_d = reference::AttentionBackward(input, d_out.matrix().values);
  // In bf16 the softmax weights are rounded before they multiply: half a unit in the last place of each term.
  const Tolerance tolerance = act() == DType::kBF16 ? Tolerance{0.02, 0.03} : Tolerance{1e-5, 1e-5};
  const auto expect = [&](const TestTensor& got, const std::vector<double>& values, const char* what) {
    Matrix matrix(got.view().rows, got.view().cols);
    ASSERT_EQ(matrix.values.size(), values.size());
    matrix.values = values;
    ExpectNear(got, matrix, tolerance, what);
  };
  expect(out, want.out, "out");
  expect(lse, want.lse, "log_sum_exp");
  expect(d_q, want_d.d_q, "d_q");
  expect(d_kv, want_d.d_kv, "d_kv");
  expect(d_k_rope, want_d.d_k_rope, "d_k_rope");
}

TEST_P(CpuBackendTest, NoOperationAllocatesOnceItHasRun) {
  if (GetParam().device != OpDevice::kCpu) return;  // copies between host and device take memory
  const int64_t tokens = 300, cols = 128, experts = 16, chosen = 4;
  TestTensor x(act(), tokens, cols), w(act(), cols, cols), y(act(), tokens, cols), gain(act(), 1, cols);
  TestTensor logits(DType::kF32, tokens, experts), scores(logits), ids(DType::kI32, tokens, chosen);
  TestTensor weights(DType::kF32, tokens, chosen), counts(DType::kI64, 1, experts), loss(DType::kF32, 1, 3);
  TestTensor offsets(DType::kI32, 1, experts + 1), row_token(DType::kI32, 1, tokens * chosen), row_slot(row_token);
  TestTensor slot_row(DType::kI32, tokens, chosen), rows(act(), tokens * chosen, cols), rows_out(rows);
  TestTensor stack(act(), experts * cols, cols), master(DType::kF32, tokens, cols), m(master), v(master);
  TestTensor norm(DType::kF64, 1, 1);
  for (TestTensor* t : {&x, &w, &gain, &logits, &stack, &master, &m}) t->Random(1);
  v.Fill([](int64_t, int64_t) { return 1.0; });
  const GateArgs gate = {.logits = logits, .bias = {}, .groups = 4, .groups_kept = 2, .chosen = chosen};
  const auto step = [&](Backend& backend, Stream& stream) {
    backend.RmsNorm(stream, {.x = x, .delta = {}, .sum = {}, .gain = gain, .eps = 1e-6, .y = y, .inverse_rms = {}});
    backend.Gemm(stream, GemmLayout::kNT, x, w, y);
    backend.Gate(stream, gate, {scores, ids, weights, counts});
    backend.SequenceBalance(
        stream,
        {.scores = scores, .sequence_length = 100, .chosen = chosen, .loss_scale = 1, .loss = loss, .d_scores = {}});
    backend.PlanDispatch(stream, {ids, experts, offsets, row_token, row_slot, slot_row});
    backend.GatherRows(stream, x, row_token, offsets, rows);
    backend.GroupedGemm(stream, GemmLayout::kNT, {offsets, experts, tokens * chosen}, rows, stack, rows_out);
    backend.CombineRows(stream, {.y = rows_out, .slot_row = slot_row, .experts = ids, .base = x}, y);
    backend.SquaredNorm(stream, master, norm);
    backend.AdamW(stream, {.master = master, .grad = m, .m = m, .v = v, .compute = y});
  };
  for (Backend* backend : {one_.get(), three_.get()}) {
    const std::unique_ptr<Stream> stream = backend->MakeStream();
    step(*backend, *stream);
    const int64_t before = HeapCalls();
    step(*backend, *stream);
    EXPECT_EQ(HeapCalls() - before, 0);
  }
}

TEST_P(CpuBackendTest, NoFp8OperationAllocatesOnceItHasRun) {
  if (GetParam().device != OpDevice::kCpu) return;  // copies between host and device take memory
  const int64_t tokens = 300, cols = 128;
  TestTensor x(act(), tokens, cols), gain(act(), 1, cols), gate_up(act(), tokens, 2 * cols), w(act(), 3 * cols, cols);
  TestTensor codes(DType::kU8, tokens, cols), w_codes(DType::kU8, 3 * cols, cols), out(act(), tokens, cols);
  TestTensor scales(DType::kF32, tokens, 1), w_scales(DType::kF32, 3, 1), offsets(DType::kI32, 1, 4);
  for (TestTensor* t : {&x, &gain, &gate_up, &w}) t->Random(1);
  offsets.Fill([](int64_t, int64_t group) { return static_cast<double>(group * 100); });
  const auto as_fp8 = [](const TestTensor& t) {
    return View(t.view().data, DType::kE4M3, t.view().rows, t.view().cols);
  };
  const MutableOperand y(as_fp8(codes), scales.view(), {1, 128}), weights(as_fp8(w_codes), w_scales.view(), {128, 128});
  const auto step = [&](Backend& backend, Stream& stream) {
    backend.Quantize(stream, {w, weights, 3});
    backend.RmsNorm(stream, {.x = x, .delta = {}, .sum = {}, .gain = gain, .eps = 1e-6, .y = y, .inverse_rms = {}});
    backend.SwiGlu(stream, {.gate_up = gate_up, .row_weight = {}, .offsets = {}}, y);
    for (const bool hopper : {false, true}) {
      backend.GroupedGemm(stream, GemmLayout::kNT, {offsets, 3, tokens}, y, weights, out, false, {.hopper = hopper});
    }
    backend.Dequantize(stream, y, out);
  };
  for (Backend* backend : {one_.get(), three_.get()}) {
    const std::unique_ptr<Stream> stream = backend->MakeStream();
    step(*backend, *stream);
    const int64_t before = HeapCalls();
    step(*backend, *stream);
    EXPECT_EQ(HeapCalls() - before, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, CpuBackendTest, testing::ValuesIn(OpCases()), OpCaseName);

}  // namespace
}  // namespace shoestring
