// Tests of the grouped products: each group equals, bit for bit, the plain product of its rows.
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "gtest/gtest.h"
#include "kernels/cpu/gemm.h"

namespace shoestring {
namespace {

struct Mode {
  Isa isa;
  GemmLayout layout;
  DType in;
  int threads;
};

std::vector<Mode> AllModes() {
  std::vector<Mode> modes;
  for (Isa isa : SupportedIsas()) {
    for (GemmLayout layout : {GemmLayout::kNT, GemmLayout::kNN, GemmLayout::kTN}) {
      for (DType in : {DType::kF32, DType::kBF16}) {
        for (int threads : {1, 3}) modes.push_back({isa, layout, in, threads});
      }
    }
  }
  return modes;
}

std::vector<char> Random(DType dtype, int64_t elements, uint64_t stream) {
  std::vector<char> bytes(elements * SizeOf(dtype));
  const Rng rng(11, RngPurpose::kTest, stream);
  for (int64_t i = 0; i < elements; ++i) {
    const float x = static_cast<float>(rng.Uniform(i) - 0.5);
    if (dtype == DType::kF32) {
      reinterpret_cast<float*>(bytes.data())[i] = x;
    } else {
      reinterpret_cast<BF16*>(bytes.data())[i] = BF16(x);
    }
  }
  return bytes;
}

constexpr int64_t kN = 72, kK = 40;  // widths of the weight: [kN, kK] a group
// Empty groups at both ends and in the middle, one crowded group, rows that belong to nobody before and after.
const std::vector<int32_t>& Offsets() {
  static const std::vector<int32_t> offsets = {5, 5, 18, 19, 19, 480, 497, 497};
  return offsets;
}
constexpr int64_t kRows = 520;

class GroupedGemmTest : public testing::TestWithParam<Mode> {
 protected:
  int groups() const { return static_cast<int>(Offsets().size()) - 1; }
  bool by_k() const { return GetParam().layout == GemmLayout::kTN; }
  int64_t a_columns() const { return GetParam().layout == GemmLayout::kNT ? kK : kN; }
  int64_t b_columns() const { return kK; }
  int64_t c_columns() const { return GetParam().layout == GemmLayout::kNT ? kN : kK; }
  int64_t c_rows() const { return by_k() ? groups() * kN : kRows; }

  // NT: y [., N] = x [., K] W_g^T.  NN: dx [., K] = dy [., N] W_g.  TN: dW_g [N, K] = dy^T [., N] x [., K].
  GroupedGemmCall Call(const std::vector<char>& a, const std::vector<char>& b, std::vector<char>& c, DType out,
                       bool accumulate) const {
    GroupedGemmCall call;
    call.each = {GetParam().layout, kN,          c_columns(), a_columns(), GetParam().in, a.data(),  a_columns(),
                 b.data(),          b_columns(), out,         c.data(),    c_columns(),   accumulate};
    call.groups = groups();
    call.offsets = Offsets().data();
    call.stride = kN * kK;
    return call;
  }
};

TEST_P(GroupedGemmTest, EqualsOnePlainProductAGroup) {
  const DType in = GetParam().in;
  ThreadPool pool(GetParam().threads, 0);
  CpuGemm gemm(&pool, GetParam().isa);
  const auto a = Random(in, kRows * a_columns(), 1);
  const auto b = Random(in, by_k() ? kRows * kK : groups() * kN * kK, 2);
  for (const bool accumulate : {false, true}) {
    for (const DType out : {DType::kF32, DType::kBF16}) {
      if (out == DType::kBF16 && accumulate) continue;
      const auto before = Random(out, c_rows() * c_columns(), 3);
      std::vector<char> got = before, want = before;
      const GroupedGemmCall call = Call(a, b, got, out, accumulate);
      gemm.RunGrouped(call);
      for (int g = 0; g < groups(); ++g) {
        const int64_t start = Offsets()[g], count = Offsets()[g + 1] - start;
        GemmCall one = call.each;
        (by_k() ? one.k : one.m) = count;
        one.a = a.data() + start * one.lda * SizeOf(in);
        one.b = b.data() + (by_k() ? start * one.ldb : g * call.stride) * SizeOf(in);
        one.c = want.data() + (by_k() ? g * call.stride : start * one.ldc) * SizeOf(out);
        gemm.Run(one);
      }
      EXPECT_EQ(got, want) << Name(out) << (accumulate ? " accumulated" : " assigned");
      EXPECT_NE(got, before);
    }
  }
}

TEST_P(GroupedGemmTest, NoTokensAtAll) {
  ThreadPool pool(GetParam().threads, 0);
  CpuGemm gemm(&pool, GetParam().isa);
  const auto a = Random(GetParam().in, kRows * a_columns(), 1);
  const auto b = Random(GetParam().in, by_k() ? kRows * kK : groups() * kN * kK, 2);
  const auto before = Random(DType::kF32, c_rows() * c_columns(), 3);
  std::vector<char> c = before;
  GroupedGemmCall call = Call(a, b, c, DType::kF32, /*accumulate=*/true);
  const std::vector<int32_t> none(groups() + 1, 7);
  call.offsets = none.data();
  gemm.RunGrouped(call);
  EXPECT_EQ(c, before);
  call.each.accumulate = false;
  gemm.RunGrouped(call);
  // Weight gradients that are assigned exist for every group; rows exist only where a group owns them.
  EXPECT_EQ(c, by_k() ? std::vector<char>(before.size(), 0) : before);
}

std::string ModeName(const testing::TestParamInfo<Mode>& info) {
  const Mode& mode = info.param;
  const char* layout = mode.layout == GemmLayout::kNT ? "NT" : mode.layout == GemmLayout::kNN ? "NN" : "TN";
  return std::string(IsaName(mode.isa)) + "_" + layout + "_" + Name(mode.in) + "_" + std::to_string(mode.threads);
}
INSTANTIATE_TEST_SUITE_P(Modes, GroupedGemmTest, testing::ValuesIn(AllModes()), ModeName);

}  // namespace
}  // namespace shoestring
