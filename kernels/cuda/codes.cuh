// The small formats on the device: chunks of codes, scales of tiles, division by them, and rows that are made of codes.
//
// kernels/e4m3.h defines every bit. The processor's own conversions of E4M3 and E5M2 round to nearest even, saturate
// and turn every NaN into the code with all bits below the sign set, as the definition does; E5M6 uses the definition
// itself.
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda/device.cuh"
#include "kernels/e4m3.h"

namespace shoestring {

template <DType kFormat>
struct CodeFormat;
template <>
struct CodeFormat<DType::kE4M3> {
  using Definition = E4M3;
  static constexpr __nv_fp8_interpretation_t kNative = __NV_E4M3;
};
template <>
struct CodeFormat<DType::kE5M2> {
  using Definition = E5M2;
  static constexpr __nv_fp8_interpretation_t kNative = __NV_E5M2;
};
template <>
struct CodeFormat<DType::kE5M6> {
  using Definition = E5M6;
};

// fn(integral_constant<DType, format>) for a quantised dtype.
template <typename Fn>
void WithFormat(DType dtype, Fn fn) {
  switch (dtype) {
    case DType::kE4M3: return fn(std::integral_constant<DType, DType::kE4M3>());
    case DType::kE5M2: return fn(std::integral_constant<DType, DType::kE5M2>());
    default: return fn(std::integral_constant<DType, DType::kE5M6>());
  }
}

// --- arguments ------------------------------------------------------------------------------------------------------

// Rows of codes and the scales of their tiles. Which row of scales belongs to a row is said by the caller.
template <typename Byte, typename Float>
struct DeviceCodes {
  Byte* codes = nullptr;
  int64_t stride = 0;  // in bytes
  Float* scales = nullptr;
  int64_t scale_stride = 0;
  int64_t tile_cols = 1;
};
using InCodes = DeviceCodes<const uint8_t, const float>;
using OutCodes = DeviceCodes<uint8_t, float>;

inline InCodes CodesOf(const Operand& x) {
  return {reinterpret_cast<const uint8_t*>(x.values.data), BytesOf(x.values.dtype, x.values.stride),
          x.scales.as<float>(), x.scales.stride, x.tile.cols};
}
inline OutCodes CodesOf(const MutableOperand& y) {
  return {reinterpret_cast<uint8_t*>(y.values.data), BytesOf(y.values.dtype, y.values.stride), y.scales.as<float>(),
          y.scales.stride, y.tile.cols};
}
// Codes of a chunk are moved 8 bytes at once, those of E5M6 4.
template <typename ViewType>
bool AllowsCodeVectors(const ViewType& x) {
  return AllowsVectors(x, x.dtype == DType::kE5M6 ? 4 : 8);
}

// --- codes of a chunk -----------------------------------------------------------------------------------------------

template <DType kFormat>
__device__ __forceinline__ uint32_t EncodeFour(float a, float b, float c, float d) {
  constexpr __nv_fp8_interpretation_t kNative = CodeFormat<kFormat>::kNative;
  const uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, kNative);
  const uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, kNative);
  return low | high << 16;
}

// Stores the codes of v, the first of which is column `col` of the row, a multiple of eight; of E5M6, n is even.
template <DType kFormat, bool kVector>
__device__ __forceinline__ void StoreCodes(uint8_t* row, int64_t col, int n, const float (&v)[kChunk]) {
  if (n <= 0) return;
  if constexpr (kFormat != DType::kE5M6) {
    const uint2 codes =
        make_uint2(EncodeFour<kFormat>(v[0], v[1], v[2], v[3]), EncodeFour<kFormat>(v[4], v[5], v[6], v[7]));
    uint8_t* to = row + col;
    if constexpr (kVector) {
      *reinterpret_cast<uint2*>(to) = codes;
    } else {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (i < n) to[i] = static_cast<uint8_t>((i < 4 ? codes.x : codes.y) >> 8 * (i % 4));
      }
    }
  } else {
    uint32_t c[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) c[i] = E5M6::Encode(v[i]);
    uint8_t* to = row + col / 2 * 3;
    if constexpr (kVector) {
      uint32_t* words = reinterpret_cast<uint32_t*>(to);
      words[0] = c[0] | c[1] << 12 | c[2] << 24;
      words[1] = c[2] >> 8 | c[3] << 4 | c[4] << 16 | c[5] << 28;
      words[2] = c[5] >> 4 | c[6] << 8 | c[7] << 20;
    } else {
#pragma unroll
      for (int i = 0; i < kChunk; i += 2) {
        if (i >= n) break;
        const uint32_t pair = c[i] | c[i + 1] << 12;
        for (int byte = 0; byte < 3; ++byte) to[i / 2 * 3 + byte] = static_cast<uint8_t>(pair >> 8 * byte);
      }
    }
  }
}

template <DType kFormat>
__device__ __forceinline__ void DecodeFour(uint32_t codes, float* v) {
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const auto pair = static_cast<__nv_fp8x2_storage_t>(codes >> 8 * i & 0xffffu);
    const float2 decoded = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(pair, CodeFormat<kFormat>::kNative)));
    v[i] = decoded.x, v[i + 1] = decoded.y;
  }
}

// The numbers that codes stand for, without scales; zero beyond n.
template <DType kFormat, bool kVector>
__device__ __forceinline__ void LoadCodes(const uint8_t* row, int64_t col, int n, float (&v)[kChunk]) {
  if (n <= 0) {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = 0.0f;
  } else if constexpr (kFormat != DType::kE5M6) {
    const uint8_t* from = row + col;
    uint2 codes = make_uint2(0, 0);
    if constexpr (kVector) {
      codes = *reinterpret_cast<const uint2*>(from);
    } else {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (i < n) (i < 4 ? codes.x : codes.y) |= uint32_t{from[i]} << 8 * (i % 4);
      }
    }
    DecodeFour<kFormat>(codes.x, v);
    DecodeFour<kFormat>(codes.y, v + 4);
  } else {
    // n may be odd here: only storing moves whole pairs, but the bytes of the last pair exist.
    const uint8_t* from = row + col / 2 * 3;
    uint32_t c[kChunk] = {};
    if constexpr (kVector) {
      const uint32_t* words = reinterpret_cast<const uint32_t*>(from);
      const uint32_t w0 = words[0], w1 = words[1], w2 = words[2];
      c[0] = w0, c[1] = w0 >> 12, c[2] = w0 >> 24 | w1 << 8, c[3] = w1 >> 4;
      c[4] = w1 >> 16, c[5] = w1 >> 28 | w2 << 4, c[6] = w2 >> 8, c[7] = w2 >> 20;
    } else {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (i >= n) break;
        const uint8_t* pair = from + i / 2 * 3;
        c[i] = i % 2 == 0 ? pair[0] | uint32_t{pair[1]} << 8 : pair[1] >> 4 | uint32_t{pair[2]} << 4;
      }
    }
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = E5M6::Decode(c[i] & 0xfffu);
  }
}

// --- scales ---------------------------------------------------------------------------------------------------------

// Of a tile whose largest magnitude is given.
template <DType kFormat>
__device__ float ScaleOf(float largest, bool power_of_two) {
  constexpr float kLargest = CodeFormat<kFormat>::Definition::kLargest;
  float scale = __fdiv_rn(largest, kLargest);
  if (power_of_two && scale < __uint_as_float(0x7f800000u)) {
    const uint32_t bits = __float_as_uint(scale);
    const uint32_t exponent = bits & 0x7f800000u;
    scale = __uint_as_float(exponent < bits ? exponent + 0x00800000u : exponent);
  }
  return scale > 0.0f ? scale : 1.0f;
}

// x / scale for |x| up to what a tile of that scale holds: to the bit a division of f32, once the quotient is rounded
// to one of the small formats.
//
// With r = 1 / scale rounded to nearest, a first correction brings x * r within one unit of the quotient, a second one
// rounds it correctly (Markstein, IBM Journal of Research and Development 34, 1990), unless something on the way is
// subnormal: so scales of extreme size divide. Within the bounds, that spoils only quotients that all formats round to
// 0.
//
// The reciprocal of a power of two is exact, and so is what it multiplies, but for the one rounding of a division.
class ScaleDivider {
 public:
  // Assigned in the body: nvcc hands initialisers to the host's compiler too, which knows no __frcp_rn.
  __device__ explicit ScaleDivider(float scale) {
    scale_ = scale;
    inverse_ = __frcp_rn(scale);
    const bool moderate = scale >= 0x1p-70f && scale <= 0x1p70f;
    const bool power_of_two = (__float_as_uint(scale) & 0x007fffffu) == 0;
    how_ = !moderate ? How::kDivide : power_of_two ? How::kMultiply : How::kCorrect;
  }
  // Divides at(0), ..., at(count - 1), which are references to floats.
  template <int count, typename At>
  __device__ __forceinline__ void Divide(At at) const {
    if (how_ == How::kMultiply) {
#pragma unroll
      for (int i = 0; i < count; ++i) at(i) = at(i) * inverse_;
    } else if (how_ == How::kCorrect) {
#pragma unroll
      for (int i = 0; i < count; ++i) at(i) = Corrected(at(i));
    } else {
#pragma unroll
      for (int i = 0; i < count; ++i) at(i) = __fdiv_rn(at(i), scale_);
    }
  }
  __device__ float operator()(float x) const {
    if (how_ == How::kMultiply) return x * inverse_;
    return how_ == How::kCorrect ? Corrected(x) : __fdiv_rn(x, scale_);
  }

 private:
  enum class How { kMultiply, kCorrect, kDivide };

  __device__ __forceinline__ float Corrected(float x) const {
    const float q = x * inverse_;
    const float close = fmaf(fmaf(-q, scale_, x), inverse_, q);
    const float rounded = fmaf(fmaf(-close, scale_, x), inverse_, close);
    return copysignf(rounded, x);  // -0 would lose its sign
  }

  float scale_, inverse_;
  How how_;
};

// --- rows as a source of numbers ------------------------------------------------------------------------------------

// Load<kVector>(row, col, n, v): what is quantised, in f32; col is a multiple of eight.
template <typename T>
struct PlainSource {
  InRows x;
  template <bool kVector>
  __device__ __forceinline__ void Load(int64_t row, int64_t col, int n, float (&v)[kChunk]) const {
    LoadChunk<kVector>(x.Row<T>(row) + col, n, v);
  }
};

template <DType kFormat>
struct CodedSource {
  InCodes x;
  template <bool kVector>
  __device__ __forceinline__ void Load(int64_t row, int64_t col, int n, float (&v)[kChunk]) const {
    Load<kVector>(row, row, col, n, v);
  }
  template <bool kVector>
  __device__ __forceinline__ void Load(int64_t row, int64_t scale_row, int64_t col, int n, float (&v)[kChunk]) const {
    if (n <= 0) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v[i] = 0.0f;
      return;
    }
    LoadCodes<kFormat, kVector>(x.codes + row * x.stride, col, n, v);
    const float* scales = x.scales + scale_row * x.scale_stride;
    // 32 bits: a division of 64 costs more than all the rest.
    const int64_t first = static_cast<uint32_t>(col) / static_cast<uint32_t>(x.tile_cols);
    if (col + n <= (first + 1) * x.tile_cols) {
      const float scale = scales[first];
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v[i] *= scale;
    } else {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (i < n) v[i] *= scales[(col + i) / x.tile_cols];
      }
    }
  }
};

// --- rows that are made in chunks -----------------------------------------------------------------------------------

// Write<kVector>(row, chunk, n, v): what becomes of a chunk of a result. Lanes of a warp hold neighbouring chunks of
// one row, and all of them call it, those without elements too.
template <typename T>
struct PlainResult {
  OutRows y;
  template <bool kVector>
  __device__ __forceinline__ void Write(int64_t row, int64_t chunk, int n, const float (&v)[kChunk]) const {
    StoreChunk<kVector>(y.Row<T>(row) + chunk * kChunk, n, v);
  }
};

// Rounded to T first, as if it had been stored and read again; tiles of one row, `lanes` chunks wide.
template <typename T, DType kFormat>
struct CodedResult {
  OutCodes y;
  int lanes;
  bool power_of_two;
  template <bool kVector>
  __device__ __forceinline__ void Write(int64_t row, int64_t chunk, int n, float (&v)[kChunk]) const {
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      v[i] = RoundAs<T>(v[i]);
      if (kVector ? n > 0 : i < n) largest = fmaxf(largest, fabsf(v[i]));
    }
    const float scale = ScaleOf<kFormat>(LanesReduce(largest, lanes, MaxOp()), power_of_two);
    if (n <= 0) return;
    if (chunk % lanes == 0) y.scales[row * y.scale_stride + chunk / lanes] = scale;
    ScaleDivider(scale).Divide<kChunk>([&](int i) -> float& { return v[i]; });
    StoreCodes<kFormat, kVector>(y.codes + row * y.stride, chunk * kChunk, n, v);
  }
};

}  // namespace shoestring
