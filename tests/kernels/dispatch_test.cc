// Tests of the exchange of tokens on the CPU: plan, gather, combine.
#include <algorithm>
#include <tuple>

#include "tests/kernels/test_tensor.h"

namespace shoestring {
namespace {

using reference::Matrix;
using DispatchTest = OpTest;

struct Shape {
  int64_t tokens, chosen, experts, cols;
};
constexpr Shape kShapes[] = {{0, 2, 4, 8}, {1, 1, 1, 1}, {5, 3, 7, 17}, {300, 4, 16, 130}};

// Random distinct experts, ascending, for every token; the last expert is never chosen where there are enough.
TestTensor RandomChoices(const Shape& s) {
  TestTensor experts(DType::kI32, s.tokens, s.chosen);
  const Rng rng(9, RngPurpose::kTest, 1);
  const int64_t used = std::max(s.chosen, s.experts - 1);
  for (int64_t t = 0; t < s.tokens; ++t) {
    std::vector<std::pair<uint64_t, int64_t>> order;
    for (int64_t e = 0; e < used; ++e) order.emplace_back(rng.Bits64(t * used + e), e);
    std::sort(order.begin(), order.end());
    std::sort(order.begin(), order.begin() + s.chosen,
              [](const auto& a, const auto& b) { return a.second < b.second; });
    for (int64_t k = 0; k < s.chosen; ++k) experts.set(t, k, static_cast<double>(order[k].second));
  }
  return experts;
}

struct Plan {
  Plan(const Shape& s, const TestTensor& experts)
      : offsets(DType::kI32, 1, s.experts + 1),
        row_token(DType::kI32, 1, s.tokens * s.chosen),
        row_slot(DType::kI32, 1, s.tokens * s.chosen),
        slot_row(DType::kI32, s.tokens, s.chosen),
        args{experts, s.experts, offsets, row_token, row_slot, slot_row} {}
  TestTensor offsets, row_token, row_slot, slot_row;
  PlanDispatchArgs args;
};

TEST_P(DispatchTest, RowsAreSortedByExpertThenToken) {
  for (const Shape& s : kShapes) {
    const TestTensor experts = RandomChoices(s);
    Plan plan(s, experts);
    Run({&plan.offsets, &plan.row_token, &plan.row_slot, &plan.slot_row},
        [&](Backend& backend, Stream& stream) { backend.PlanDispatch(stream, plan.args); });
    std::vector<std::tuple<int64_t, int64_t, int64_t>> pairs;  // expert, token, slot
    for (int64_t t = 0; t < s.tokens; ++t) {
      for (int64_t k = 0; k < s.chosen; ++k) pairs.emplace_back(experts.at(t, k), t, k);
    }
    std::sort(pairs.begin(), pairs.end());
    Matrix offsets(1, s.experts + 1);
    for (size_t r = 0; r < pairs.size(); ++r) {
      const auto [expert, token, slot] = pairs[r];
      const int64_t row = static_cast<int64_t>(r);
      EXPECT_EQ(plan.row_token.at(0, row), token);
      EXPECT_EQ(plan.row_slot.at(0, row), token * s.chosen + slot);
      EXPECT_EQ(plan.slot_row.at(token, slot), row);
      for (int64_t e = expert + 1; e <= s.experts; ++e) offsets.at(0, e) += 1;
    }
    ExpectNear(plan.offsets, offsets, {0, 0}, "offsets");
  }
}

TEST_P(DispatchTest, GathersRowsAndValues) {
  for (const Shape& s : kShapes) {
    const TestTensor experts = RandomChoices(s);
    Plan plan(s, experts);
    const int64_t rows = s.tokens * s.chosen;
    TestTensor x(act(), s.tokens, s.cols, 4), y(act(), rows, s.cols, 2), values(DType::kF32, s.tokens, s.chosen);
    TestTensor row_values(DType::kF32, 1, rows), back(DType::kF32, s.tokens, s.chosen, 1);
    x.Random(1);
    values.Random(2);
    Run({&y, &row_values, &back}, [&](Backend& backend, Stream& stream) {
      backend.PlanDispatch(stream, plan.args);
      backend.GatherRows(stream, x, plan.row_token, plan.offsets, y);
      backend.GatherChosen(stream, values, plan.row_slot, plan.offsets, row_values);
      backend.ScatterChosen(stream, row_values, plan.slot_row, back);
    });
    Matrix want(rows, s.cols), want_values(1, rows);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t token = static_cast<int64_t>(plan.row_token.at(0, r));
      const int64_t slot = static_cast<int64_t>(plan.row_slot.at(0, r)) % s.chosen;
      want_values.at(0, r) = values.at(token, slot);
      for (int64_t j = 0; j < s.cols; ++j) want.at(r, j) = x.at(token, j);
    }
    ExpectNear(y, want, {0, 0}, "y");
    ExpectNear(row_values, want_values, {0, 0}, "row_values");
    ExpectNear(back, values.matrix(), {0, 0}, "chosen_values");
  }
}

TEST_P(DispatchTest, GatherLeavesPaddingAlone) {
  TestTensor x(act(), 2, 9), y(act(), 5, 9), row_token(DType::kI32, 1, 5), offsets(DType::kI32, 1, 2);
  x.Random(1);
  row_token.Fill([](int64_t, int64_t r) { return r < 3 ? 1.0 : 77.0; });  // 77 would be out of range
  offsets.Fill([](int64_t, int64_t e) { return e == 0 ? 0.0 : 3.0; });
  Run({&y}, [&](Backend& backend, Stream& stream) { backend.GatherRows(stream, x, row_token, offsets, y); });
  for (int64_t r = 0; r < 5; ++r) EXPECT_EQ(std::isnan(y.at(r, 8)), r >= 3);
}

TEST_P(DispatchTest, CombineRoundsOnceAGroup) {
  for (const Shape& s : kShapes) {
    for (int64_t experts_per_group : {int64_t{1}, int64_t{3}, s.experts}) {
      for (bool with_base : {false, true}) {
        const TestTensor experts = RandomChoices(s);
        Plan plan(s, experts);
        TestTensor y(act(), s.tokens * s.chosen, s.cols, 3), base(act(), s.tokens, s.cols, 1);
        TestTensor out(act(), s.tokens, s.cols, 2);
        y.Random(1);
        base.Random(2);
        const CombineArgs args = {.y = y,
                                  .slot_row = plan.slot_row,
                                  .experts = experts,
                                  .experts_per_group = experts_per_group,
                                  .base = with_base ? ConstView(base) : ConstView()};
        Run({&out}, [&](Backend& backend, Stream& stream) {
          backend.PlanDispatch(stream, plan.args);
          backend.CombineRows(stream, args, out);
        });
        // Every step of the order in the definition is an f32 addition or a rounding, so the bits must agree.
        Matrix want(s.tokens, s.cols);
        for (int64_t t = 0; t < s.tokens; ++t) {
          for (int64_t j = 0; j < s.cols; ++j) {
            std::vector<float> group_sums((s.experts + experts_per_group - 1) / experts_per_group, 0.0f);
            for (int64_t k = 0; k < s.chosen; ++k) {
              const int64_t group = static_cast<int64_t>(experts.at(t, k)) / experts_per_group;
              group_sums[group] += static_cast<float>(y.at(static_cast<int64_t>(plan.slot_row.at(t, k)), j));
            }
            float total = 0;
            for (float sum : group_sums) total += static_cast<float>(reference::RoundTo(act(), sum));
            if (with_base) total += static_cast<float>(base.at(t, j));
            want.at(t, j) = reference::RoundTo(act(), total);
          }
        }
        ExpectNear(out, want, {0, 0}, "out");
      }
    }
  }
}

// A slot without a row is as if the token had not chosen it; without any, the base alone is left.
TEST_P(DispatchTest, CombineSkipsSlotsWithoutRow) {
  constexpr int64_t kCols = 37;
  TestTensor y(act(), 4, kCols), base(act(), 3, kCols), out(act(), 3, kCols, 1);
  TestTensor slot_row(DType::kI32, 3, 3), experts(DType::kI32, 3, 3);
  y.Random(1);
  base.Random(2);
  constexpr int64_t kRows[3][3] = {{-1, 0, 1}, {2, -1, 3}, {-1, -1, -1}};
  slot_row.Fill([&](int64_t t, int64_t k) { return static_cast<double>(kRows[t][k]); });
  experts.Fill([](int64_t, int64_t k) { return static_cast<double>(k); });  // groups {0, 1} and {2}
  const CombineArgs args = {.y = y, .slot_row = slot_row, .experts = experts, .experts_per_group = 2, .base = base};
  Run({&out}, [&](Backend& backend, Stream& stream) { backend.CombineRows(stream, args, out); });
  Matrix want(3, kCols);
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t j = 0; j < kCols; ++j) {
      float total = 0;  // no group has two rows here, so that a group's sum is its row
      for (int64_t k = 0; k < 3; ++k) total += kRows[t][k] < 0 ? 0.0f : static_cast<float>(y.at(kRows[t][k], j));
      want.at(t, j) = reference::RoundTo(act(), total + static_cast<float>(base.at(t, j)));
    }
  }
  ExpectNear(out, want, {0, 0}, "out");
}

INSTANTIATE_TEST_SUITE_P(Cpu, DispatchTest, testing::ValuesIn(OpCases()), OpCaseName);

}  // namespace
}  // namespace shoestring
