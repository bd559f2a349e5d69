// Tests that no operation's bits depend on where rows lie: aligned, as vectors of 16 bytes want them, or not.
//
// The other tests compare odd shapes with the definitions; these carry what they say over to the shapes of real models.
#include <functional>
#include <limits>
#include <vector>

#include "tests/kernels/test_tensor.h"

namespace shoestring {
namespace {

class AlignmentTest : public OpTest {
 protected:
  using Compute = std::function<std::vector<TestTensor>(int64_t gap)>;

  // compute(gap): results of tensors whose rows are `gap` elements apart; with a gap of 3 hardly any row is aligned.
  static void ExpectSame(const Compute& compute) {
    const std::vector<TestTensor> aligned = compute(0), other = compute(3);
    ASSERT_EQ(aligned.size(), other.size());
    for (size_t t = 0; t < aligned.size(); ++t) {
      const View& view = aligned[t].view();
      for (int64_t i = 0; i < view.rows; ++i) {
        for (int64_t j = 0; j < view.cols; ++j) {
          ASSERT_EQ(aligned[t].at(i, j), other[t].at(i, j)) << "result " << t << " at " << i << ", " << j;
        }
      }
      EXPECT_TRUE(other[t].GapsUntouched());
    }
  }
  TestTensor Random(DType dtype, int64_t rows, int64_t cols, int64_t gap, uint64_t seed, double scale = 1) const {
    TestTensor x(dtype, rows, cols, gap);
    x.Random(seed, scale);
    return x;
  }
};

constexpr int64_t kWidths[] = {8, 72, 256, 1536, 7168, 16392};
constexpr int64_t kRows = 3;

TEST_P(AlignmentTest, Norms) {
  for (const int64_t cols : kWidths) {
    SCOPED_TRACE(cols);
    for (const bool quantised : {false, true}) {
      ExpectSame([&](int64_t gap) {
        const TestTensor x = Random(act(), kRows, cols, gap, 1), delta = Random(act(), kRows, cols, gap, 2);
        const TestTensor gain = Random(DType::kF32, 1, cols, 0, 3);
        TestTensor sum(act(), kRows, cols, gap), y(act(), kRows, cols, gap), rms(DType::kF32, 1, kRows);
        TestTensor codes(DType::kE4M3, kRows, cols, gap), scales(DType::kF32, kRows, (cols + 127) / 128, gap);
        const MutableOperand coded(codes.view(), scales.view(), {1, 128}, true);
        Run({&sum, &y, &rms, &codes, &scales}, [&](Backend& backend, Stream& stream) {
          backend.RmsNorm(stream, {.x = x,
                                   .delta = delta,
                                   .sum = sum,
                                   .gain = gain,
                                   .eps = 1e-6,
                                   .y = quantised ? coded : MutableOperand(y.view()),
                                   .inverse_rms = rms});
        });
        return quantised ? std::vector<TestTensor>{sum, rms, codes, scales} : std::vector<TestTensor>{sum, rms, y};
      });
    }
    ExpectSame([&](int64_t gap) {
      const TestTensor x = Random(act(), kRows, cols, gap, 1), dy = Random(act(), kRows, cols, gap, 2);
      const TestTensor gain = Random(DType::kF32, 1, cols, 0, 3), rms = Random(DType::kF32, 1, kRows, 0, 4);
      const TestTensor add = Random(act(), kRows, cols, gap, 5);
      TestTensor dx(act(), kRows, cols, gap), d_gain = Random(DType::kF32, 1, cols, 0, 6);
      Run({&dx, &d_gain}, [&](Backend& backend, Stream& stream) {
        backend.RmsNormBackwardInput(stream,
                                     {.dy = dy, .x = x, .gain = gain, .inverse_rms = rms, .add = add, .dx = dx});
        backend.RmsNormBackwardWeight(stream, {.dy = dy, .x = x, .inverse_rms = rms, .d_gain = d_gain});
      });
      return std::vector<TestTensor>{dx, d_gain};
    });
  }
}

TEST_P(AlignmentTest, GradientOfGainsOverManyRows) {
  ExpectSame([&](int64_t gap) {
    const int64_t rows = 700, cols = 264;
    const TestTensor x = Random(act(), rows, cols, gap, 1), dy = Random(act(), rows, cols, gap, 2);
    const TestTensor rms = Random(DType::kF32, 1, rows, 0, 4);
    TestTensor d_gain = Random(DType::kF32, 1, cols, 0, 6);
    Run({&d_gain}, [&](Backend& backend, Stream& stream) {
      backend.RmsNormBackwardWeight(stream, {.dy = dy, .x = x, .inverse_rms = rms, .d_gain = d_gain});
    });
    return std::vector<TestTensor>{d_gain};
  });
}

TEST_P(AlignmentTest, SwiGluAndRope) {
  for (const int64_t width : {8, 136, 2048, 18432}) {
    SCOPED_TRACE(width);
    ExpectSame([&](int64_t gap) {
      const TestTensor gate_up = Random(act(), kRows, 2 * width, gap, 1), dy = Random(act(), kRows, width, gap, 2);
      const TestTensor weight = Random(DType::kF32, 1, kRows, 0, 3);
      const SwiGluArgs args = {.gate_up = gate_up, .row_weight = weight, .offsets = {}};
      TestTensor y(act(), kRows, width, gap), d_gate_up(act(), kRows, 2 * width, gap), d_weight(DType::kF32, 1, kRows);
      TestTensor codes(DType::kE5M2, kRows, width, gap), scales(DType::kF32, kRows, (width + 127) / 128);
      Run({&y, &d_gate_up, &d_weight, &codes, &scales}, [&](Backend& backend, Stream& stream) {
        backend.SwiGlu(stream, args, y);
        backend.SwiGlu(stream, args, MutableOperand(codes.view(), scales.view(), {1, 128}));
        backend.SwiGluBackward(stream, args, dy, d_gate_up, d_weight);
      });
      return std::vector<TestTensor>{y, d_gate_up, d_weight, codes, scales};
    });
  }
  ExpectSame([&](int64_t gap) {
    const int64_t heads = 5, pairs = 32, stride = 192, offset = 128;
    TestTensor x = Random(act(), kRows, heads * stride, gap, 1), positions(DType::kI32, 1, kRows);
    const TestTensor cosines = Random(DType::kF32, 8, pairs, 0, 2), sines = Random(DType::kF32, 8, pairs, 0, 3);
    positions.Fill([](int64_t, int64_t t) { return static_cast<double>(t * 3 % 8); });
    Run({&x}, [&](Backend& backend, Stream& stream) {
      backend.Rope(stream, {.x = x,
                            .heads = heads,
                            .head_stride = stride,
                            .offset = offset,
                            .cos_table = cosines,
                            .sin_table = sines,
                            .positions = positions});
    });
    return std::vector<TestTensor>{x};
  });
}

TEST_P(AlignmentTest, Quantisers) {
  for (const DType format : {DType::kE4M3, DType::kE5M2}) {
    for (const Tile tile : {Tile{1, 128}, Tile{128, 1}, Tile{128, 128}, Tile{1, 32}, Tile{64, 128}}) {
      ExpectSame([&](int64_t gap) {
        const int64_t rows = 200, cols = 328;
        const TestTensor x = Random(act(), rows, cols, gap, 1);
        TestTensor codes(format, rows, cols, gap), scales(DType::kF32, ScaleRows(tile, rows), ScaleColumns(tile, cols));
        TestTensor back(act(), rows, cols, gap), again(DType::kE4M3, rows, cols, gap);
        TestTensor scales_too(DType::kF32, ScaleRows({128, 1}, rows), cols);
        const MutableOperand coded(codes.view(), scales.view(), tile, true);
        Run({&codes, &scales, &back, &again, &scales_too}, [&](Backend& backend, Stream& stream) {
          backend.Quantize(stream, {x, coded});
          backend.Dequantize(stream, coded, back);
          if (tile.rows != 1) return;
          backend.Quantize(stream, {coded, MutableOperand(again.view(), scales_too.view(), {128, 1}, true)});
        });
        std::vector<TestTensor> results = {codes, scales, back};
        if (tile.rows == 1) results.push_back(again), results.push_back(scales_too);
        return results;
      });
    }
  }
}

TEST_P(AlignmentTest, RouterAndExchange) {
  ExpectSame([&](int64_t gap) {
    const int64_t tokens = 70, experts = 256, chosen = 8, cols = 264, rows = tokens * chosen;
    const TestTensor logits = Random(DType::kF32, tokens, experts, gap, 1), x = Random(act(), tokens, cols, gap, 2);
    TestTensor scores(DType::kF32, tokens, experts, gap), ids(DType::kI32, tokens, chosen);
    TestTensor weights(DType::kF32, tokens, chosen), counts(DType::kI64, 1, experts), loss(DType::kF32, 1, 2);
    TestTensor d_scores(DType::kF32, tokens, experts, gap), d_logits(DType::kF32, tokens, experts, gap);
    TestTensor offsets(DType::kI32, 1, experts + 1), row_token(DType::kI32, 1, rows), row_slot(DType::kI32, 1, rows);
    TestTensor slot_row(DType::kI32, tokens, chosen), sent(act(), rows, cols, gap), out(act(), tokens, cols, gap);
    counts.Fill([](int64_t, int64_t) { return 0.0; });
    const GateArgs gate = {
        .logits = logits, .bias = {}, .groups = 8, .groups_kept = 4, .chosen = chosen, .scaling = 2.5};
    Run({&scores, &ids, &weights, &counts, &loss, &d_scores, &d_logits, &sent, &out},
        [&](Backend& backend, Stream& stream) {
          backend.Gate(stream, gate, {scores, ids, weights, counts});
          backend.SequenceBalance(stream, {.scores = scores,
                                           .sequence_length = tokens / 2,
                                           .chosen = chosen,
                                           .loss_scale = 1,
                                           .loss = loss,
                                           .d_scores = d_scores});
          backend.GateBackward(
              stream, gate,
              {.scores = scores, .experts = ids, .d_weights = weights, .d_scores = d_scores, .d_logits = d_logits});
          backend.PlanDispatch(stream, {ids, experts, offsets, row_token, row_slot, slot_row});
          backend.GatherRows(stream, x, row_token, offsets, sent);
          backend.CombineRows(
              stream, {.y = sent, .slot_row = slot_row, .experts = ids, .experts_per_group = 32, .base = x}, out);
        });
    return std::vector<TestTensor>{scores, ids, weights, counts, loss, d_scores, d_logits, sent, out};
  });
}

TEST_P(AlignmentTest, EndsOfTheModel) {
  for (const int64_t vocabulary : {24, 4096, 40000}) {
    SCOPED_TRACE(vocabulary);
    ExpectSame([&](int64_t gap) {
      const TestTensor logits = Random(DType::kF32, kRows, vocabulary, gap, 1, 4);
      TestTensor targets(DType::kI32, 1, kRows), loss(DType::kF32, 1, kRows), d(act(), kRows, vocabulary, gap);
      targets.Fill([&](int64_t, int64_t t) { return t == 1 ? -1.0 : static_cast<double>(t * 7919 % vocabulary); });
      Run({&loss, &d}, [&](Backend& backend, Stream& stream) {
        backend.CrossEntropy(stream,
                             {.logits = logits, .targets = targets, .grad_scale = 0.5, .loss = loss, .d_logits = d});
      });
      return std::vector<TestTensor>{loss, d};
    });
  }
  ExpectSame([&](int64_t gap) {
    const int64_t tokens = 300, cols = 520, vocabulary = 7;
    const TestTensor table = Random(act(), vocabulary, cols, gap, 1), dx = Random(act(), tokens, cols, gap, 2);
    TestTensor ids(DType::kI32, 1, tokens), x(act(), tokens, cols, gap);
    TestTensor d_table = Random(DType::kF32, vocabulary, cols, gap, 3);
    ids.Fill([](int64_t, int64_t t) { return static_cast<double>(t * t % 6); });
    Run({&x, &d_table}, [&](Backend& backend, Stream& stream) {
      backend.Embedding(stream, ids, table, x);
      backend.EmbeddingBackward(stream, ids, dx, d_table);
    });
    return std::vector<TestTensor>{x, d_table};
  });
}

// Contiguous tensors: what moves is their first element.
TEST_P(AlignmentTest, OptimizerAndCopies) {
  const int64_t count = 5000;
  ExpectSame([&](int64_t gap) {
    const auto shifted = [&](const TestTensor& t) { return t.view().Columns(gap, count); };
    const auto make = [&](DType dtype, uint64_t seed) {
      TestTensor t(dtype, 1, count + gap);
      const Rng rng(seed, RngPurpose::kTest, 0);
      t.Fill([&](int64_t, int64_t j) { return j < gap ? 0.0 : std::abs(rng.Normal(j - gap)); });
      return t;
    };
    TestTensor w = make(DType::kF32, 1), m = make(act(), 2), v = make(act(), 3), compute = make(act(), 4);
    TestTensor ema = make(DType::kF32, 5), sum = make(act(), 6), norm(DType::kF64, 1, 1);
    const TestTensor grad = make(DType::kF32, 7);
    Run({&w, &m, &v, &compute, &ema, &sum, &norm}, [&](Backend& backend, Stream& stream) {
      backend.AdamW(stream, {.master = shifted(w),
                             .grad = shifted(grad),
                             .m = shifted(m),
                             .v = shifted(v),
                             .compute = shifted(compute),
                             .learning_rate = 0.1,
                             .weight_decay = 0.1});
      backend.Ema(stream, shifted(w), 0.99, shifted(ema));
      backend.Add(stream, shifted(w), shifted(compute), shifted(sum));
      backend.SquaredNorm(stream, shifted(w), norm);
    });
    std::vector<TestTensor> results;
    for (const TestTensor* t : {&w, &m, &v, &compute, &ema, &sum}) {
      TestTensor& part = results.emplace_back(t->view().dtype, 1, count);
      part.Fill([&](int64_t, int64_t j) { return t->at(0, gap + j); });
    }
    results.push_back(norm);
    return results;
  });
}

INSTANTIATE_TEST_SUITE_P(Cpu, AlignmentTest, testing::ValuesIn(OpCases()), OpCaseName);

}  // namespace
}  // namespace shoestring
