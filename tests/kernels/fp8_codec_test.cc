// Tests of the small formats against a table of all their codes and of the ties between them: every one of the 2^32
// FP32 inputs on the best level, those around each tie and a sample of all on the others and in the scalar definition.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/e4m3.h"
#include "tests/kernels/fp8_codecs.h"
#include "tests/kernels/reference/fp8.h"

namespace shoestring {
namespace {

// Which FP32 inputs become which code: code c (without sign) is that of the magnitudes whose bits are in
// [first_bits[c], first_bits[c + 1]). The last interval holds NaN.
struct Intervals {
  std::vector<uint32_t> first_bits;
  std::vector<uint32_t> codes;
};

Intervals IntervalsOf(DType dtype) {
  const reference::SmallFormat format = reference::FormatOf(dtype);
  Intervals out;
  out.first_bits.push_back(0);
  out.codes.push_back(0);
  for (uint32_t code = 1; code < format.first_nan; ++code) {
    const double tie = (reference::ValueOf(dtype, code - 1) + reference::ValueOf(dtype, code)) / 2;
    const float tie_f32 = static_cast<float>(tie);
    EXPECT_EQ(tie_f32, tie);  // ties of these formats are numbers of FP32
    // A tie goes to the even code: to this one, or to the one before.
    out.first_bits.push_back(std::bit_cast<uint32_t>(tie_f32) + code % 2);
    out.codes.push_back(code);
  }
  out.first_bits.push_back(0x7f800001u);  // infinity saturates, what follows is NaN
  out.codes.push_back((1u << (format.exponent_bits + format.fraction_bits)) - 1);
  out.first_bits.push_back(0x80000000u);
  return out;
}

uint32_t WantedCode(const Intervals& intervals, uint32_t bits, uint32_t sign_bit) {
  const uint32_t magnitude = bits & 0x7fffffffu;
  const auto next = std::upper_bound(intervals.first_bits.begin(), intervals.first_bits.end(), magnitude);
  const int64_t at = next - intervals.first_bits.begin() - 1;
  const bool nan = at == static_cast<int64_t>(intervals.codes.size()) - 1;
  return intervals.codes[at] | (bits >> 31 != 0 && !nan ? sign_bit : 0);
}

struct Codec {
  std::string name;
  DType dtype;
  uint32_t sign_bit;
  // Exactly one is set.
  void (*bytes)(const float*, int64_t, uint8_t*) = nullptr;
  void (*words)(const float*, int64_t, uint16_t*) = nullptr;
};

std::vector<Codec> CodecsOf(const std::string& name, const Fp8Codecs& codecs) {
  return {{name + " e4m3", DType::kE4M3, 0x80, codecs.encode_e4m3, nullptr},
          {name + " e5m2", DType::kE5M2, 0x80, codecs.encode_e5m2, nullptr},
          {name + " e5m6", DType::kE5M6, 0x800, nullptr, codecs.encode_e5m6}};
}

template <typename Format>
void ScalarBytes(const float* x, int64_t count, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(Format::Encode(x[i]));
}
void ScalarWords(const float* x, int64_t count, uint16_t* codes) {
  for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<uint16_t>(E5M6::Encode(x[i]));
}

std::vector<Fp8Codecs> Levels() {
  std::vector<Fp8Codecs> levels = {PortableCodecs()};
  if (IsaSupported(Isa::kAvx2)) levels.push_back(Avx2Codecs());
  if (IsaSupported(Isa::kAvx512)) levels.push_back(Avx512Codecs());
  return levels;
}

std::vector<Codec> AllCodecs() {
  std::vector<Codec> all = CodecsOf("scalar", {ScalarBytes<E4M3>, ScalarBytes<E5M2>, ScalarWords, nullptr, nullptr});
  int level = 0;
  for (const Fp8Codecs& codecs : Levels()) {
    for (const Codec& codec : CodecsOf("level " + std::to_string(level), codecs)) all.push_back(codec);
    ++level;
  }
  return all;
}

constexpr int64_t kChunk = int64_t{1} << 14;

// Number of inputs with the bits start, start + step, ... (kChunk of them) that become another code than `want` says.
template <typename Code, typename Want>
int64_t Mismatches(void (*encode)(const float*, int64_t, Code*), uint32_t start, uint32_t step, Want want) {
  alignas(64) uint32_t bits[kChunk];
  alignas(64) float x[kChunk];
  alignas(64) Code codes[kChunk];
  for (int64_t i = 0; i < kChunk; ++i) bits[i] = start + static_cast<uint32_t>(i) * step;
  std::memcpy(x, bits, sizeof(x));
  encode(x, kChunk, codes);
  int64_t wrong = 0;
  for (int64_t i = 0; i < kChunk; ++i) wrong += codes[i] != want(bits[i]);
  return wrong;
}

// All inputs of a chunk of neighbours, interval by interval.
template <typename Code>
int64_t MismatchesOfChunk(void (*encode)(const float*, int64_t, Code*), const Intervals& intervals, uint32_t sign_bit,
                          uint32_t start) {
  const uint32_t magnitude = start & 0x7fffffffu;
  const auto next = std::upper_bound(intervals.first_bits.begin(), intervals.first_bits.end(), magnitude);
  if (static_cast<int64_t>(*next) - magnitude >= kChunk) {  // one code for all, as nearly always
    const Code only = static_cast<Code>(WantedCode(intervals, start, sign_bit));
    return Mismatches(encode, start, 1, [only](uint32_t) { return only; });
  }
  return Mismatches(encode, start, 1,
                    [&](uint32_t bits) { return static_cast<Code>(WantedCode(intervals, bits, sign_bit)); });
}

template <typename Run>
int64_t Sum(int64_t chunks, Run run) {
  ThreadPool pool(2);
  std::vector<int64_t> wrong(2, 0);
  pool.ParallelFor(chunks, [&](int64_t i, int worker) { wrong[worker] += run(i); });
  return wrong[0] + wrong[1];
}

TEST(Fp8CodecTest, EveryInputOfFp32OnTheBestLevel) {
  const Fp8Codecs best = Levels().back();
  for (const Codec& codec : CodecsOf("best", best)) {
    const Intervals intervals = IntervalsOf(codec.dtype);
    const int64_t wrong = Sum((int64_t{1} << 32) / kChunk, [&](int64_t i) {
      const uint32_t start = static_cast<uint32_t>(i * kChunk);
      if (codec.words != nullptr) return MismatchesOfChunk(codec.words, intervals, codec.sign_bit, start);
      return MismatchesOfChunk(codec.bytes, intervals, codec.sign_bit, start);
    });
    EXPECT_EQ(wrong, 0) << codec.name;
  }
}

TEST(Fp8CodecTest, TiesAndASampleOnEveryLevel) {
  for (const Codec& codec : AllCodecs()) {
    const Intervals intervals = IntervalsOf(codec.dtype);
    const auto check = [&](uint32_t start, uint32_t step) {
      const auto want = [&](uint32_t bits) { return WantedCode(intervals, bits, codec.sign_bit); };
      return codec.words != nullptr ? Mismatches(codec.words, start, step, want)
                                    : Mismatches(codec.bytes, start, step, want);
    };
    // Odd steps walk through all bit patterns of the low places.
    EXPECT_EQ(Sum(64, [&](int64_t i) { return check(static_cast<uint32_t>(i) * 67108859u, 4093u); }), 0) << codec.name;
    int64_t wrong = 0;
    for (uint32_t first : intervals.first_bits) {
      if (intervals.first_bits.size() > 1000 && first % 7 != 0) continue;
      for (uint32_t sign : {0u, 0x80000000u}) wrong += check((first | sign) - kChunk / 2, 1);
    }
    EXPECT_EQ(wrong, 0) << codec.name;
  }
}

TEST(Fp8CodecTest, EveryCodeIsDecodedOnEveryLevel) {
  for (const Fp8Codecs& codecs : Levels()) {
    for (DType dtype : {DType::kE4M3, DType::kE5M2}) {
      uint8_t codes[256];
      float x[256];
      for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(i);
      (dtype == DType::kE4M3 ? codecs.decode_e4m3 : codecs.decode_e5m2)(codes, 256, x);
      for (uint32_t i = 0; i < 256; ++i) {
        const double want = reference::ValueOf(dtype, i);
        const float scalar = dtype == DType::kE4M3 ? E4M3::Decode(i) : E5M2::Decode(i);
        EXPECT_TRUE(std::isnan(want) ? std::isnan(x[i]) : x[i] == want && std::signbit(x[i]) == (i >= 128)) << i;
        EXPECT_EQ(std::bit_cast<uint32_t>(scalar), std::bit_cast<uint32_t>(x[i])) << i;
      }
    }
  }
  for (uint32_t i = 0; i < 4096; ++i) {
    const double want = reference::ValueOf(DType::kE5M6, i);
    EXPECT_TRUE(std::isnan(want) ? std::isnan(E5M6::Decode(i)) : E5M6::Decode(i) == want) << i;
  }
}

}  // namespace
}  // namespace shoestring
