// What all memory-bound kernels share: rows of f32 or bf16 in chunks of eight, rounding, reductions, checks.
//
// As on the CPU, a bf16 element is a uint16_t here. A chunk that reaches beyond its row has `n` elements below eight,
// or none; what is missing reads as zero and is not written. kVector: data and strides allow 16 bytes at once, and
// every chunk has eight elements or none.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <cstdio>
#include <type_traits>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/launch_plan.h"
#include "kernels/tensor.h"

namespace shoestring {

// --- checks ---------------------------------------------------------------------------------------------------------

// Stops the device: the host hears of it at its next call.
inline __device__ __noinline__ void DeviceCheckFailed(const char* what, const char* file, int line) {
  printf("%s:%d: check failed on the device: %s\n", file, line, what);
  __trap();
}
#define DEVICE_CHECK(condition)                                                        \
  do {                                                                                 \
    if (!(condition)) ::shoestring::DeviceCheckFailed(#condition, __FILE__, __LINE__); \
  } while (false)

// --- arguments ------------------------------------------------------------------------------------------------------

// Rows that start `stride` elements apart; null data: left out.
template <typename Byte>
struct DeviceRows {
  Byte* data = nullptr;
  int64_t stride = 0;
  bool bf16 = false;

  template <typename T>
  __device__ auto* Row(int64_t row) const {
    using Element = std::conditional_t<std::is_const_v<Byte>, const T, T>;
    return reinterpret_cast<Element*>(data) + row * stride;
  }
};
using InRows = DeviceRows<const std::byte>;
using OutRows = DeviceRows<std::byte>;

inline InRows InOf(const ConstView& x) { return {x.data, x.stride, x.dtype == DType::kBF16}; }
inline OutRows OutOf(const View& x) { return {x.data, x.stride, x.dtype == DType::kBF16}; }

template <typename T, typename ViewType>
auto* PointerOrNull(const ViewType& x) {
  return x ? x.template as<T>() : nullptr;
}
// Where the number of existing rows lies on the device; null: all exist.
inline const int32_t* LastOffset(const ConstView& offsets) {
  return offsets ? offsets.as<int32_t>() + offsets.cols - 1 : nullptr;
}
inline __device__ int64_t ExistingRows(const int32_t* last_offset, int64_t all) {
  if (last_offset == nullptr) return all;
  const int64_t rows = *last_offset;
  DEVICE_CHECK(rows >= 0 && rows <= all);
  return rows;
}

// Whether rows can be read `bytes` at once (a power of two): start, distance and length are multiples of it.
template <typename ViewType>
bool AllowsVectors(const ViewType& x, int64_t bytes = 16) {
  if (x.data == nullptr) return true;
  const bool distance = x.rows <= 1 || BytesOf(x.dtype, x.stride) % bytes == 0;
  return reinterpret_cast<uintptr_t>(x.data) % bytes == 0 && distance && x.cols % kChunk == 0;
}

// fn(bool_constant) for a bool known at run time; fn(float or uint16_t) for an activation dtype.
template <typename Fn>
void WithBool(bool value, Fn fn) {
  value ? fn(std::true_type()) : fn(std::false_type());
}
template <typename Fn>
void WithActivation(DType dtype, Fn fn) {
  dtype == DType::kBF16 ? fn(uint16_t{}) : fn(float{});
}

// --- chunks of eight ------------------------------------------------------------------------------------------------

inline __device__ int ChunkSize(int64_t chunk, int64_t cols) {
  const int64_t left = cols - chunk * kChunk;
  return left >= kChunk ? kChunk : static_cast<int>(left);  // below 1: none
}

inline __device__ float FromBf16(uint32_t bits) { return __uint_as_float(bits << 16); }
inline __device__ float LoadOne(const float* p) { return *p; }
inline __device__ float LoadOne(const uint16_t* p) { return FromBf16(*p); }
inline __device__ uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
inline __device__ void StoreOne(float* p, float v) { *p = v; }
inline __device__ void StoreOne(uint16_t* p, float v) { *p = static_cast<uint16_t>(PackBf16(v, 0.0f)); }
// As it will be read again from a tensor of that type.
template <typename T>
__device__ float RoundAs(float v) {
  if constexpr (sizeof(T) == 4) return v;
  return FromBf16(PackBf16(v, 0.0f) & 0xffffu);
}

inline __device__ void LoadVector(const float* p, float (&v)[kChunk]) {
  const float4 a = reinterpret_cast<const float4*>(p)[0];
  const float4 b = reinterpret_cast<const float4*>(p)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
inline __device__ void LoadVector(const uint16_t* p, float (&v)[kChunk]) {
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = FromBf16(words[i]);  // the upper half is shifted out
    v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
inline __device__ void StoreVector(float* p, const float (&v)[kChunk]) {
  reinterpret_cast<float4*>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
inline __device__ void StoreVector(uint16_t* p, const float (&v)[kChunk]) {
  *reinterpret_cast<uint4*>(p) =
      make_uint4(PackBf16(v[0], v[1]), PackBf16(v[2], v[3]), PackBf16(v[4], v[5]), PackBf16(v[6], v[7]));
}

template <bool kVector, typename T>
__device__ __forceinline__ void LoadChunk(const T* p, int n, float (&v)[kChunk]) {
  if constexpr (kVector) {
    if (n > 0) return LoadVector(p, v);
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) v[i] = i < (kVector ? 0 : n) ? LoadOne(p + i) : 0.0f;
}
template <bool kVector, typename T>
__device__ __forceinline__ void StoreChunk(T* p, int n, const float (&v)[kChunk]) {
  if constexpr (kVector) {
    if (n > 0) StoreVector(p, v);
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (i < n) StoreOne(p + i, v[i]);
    }
  }
}

// For tensors whose dtype is known at run time only; the same branch in all threads.
template <bool kVector>
__device__ __forceinline__ void LoadEither(const InRows& x, int64_t row, int64_t col, int n, float (&v)[kChunk]) {
  x.bf16 ? LoadChunk<kVector>(x.Row<uint16_t>(row) + col, n, v) : LoadChunk<kVector>(x.Row<float>(row) + col, n, v);
}
template <bool kVector>
__device__ __forceinline__ void StoreEither(const OutRows& x, int64_t row, int64_t col, int n,
                                            const float (&v)[kChunk]) {
  x.bf16 ? StoreChunk<kVector>(x.Row<uint16_t>(row) + col, n, v) : StoreChunk<kVector>(x.Row<float>(row) + col, n, v);
}

// --- reductions -----------------------------------------------------------------------------------------------------

struct AddOp {
  template <typename V>
  __device__ V operator()(V a, V b) const {
    return a + b;
  }
};
struct MaxOp {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }  // a NaN loses
};

// Over neighbouring `lanes` of a warp, a power of two; all get the same bits.
template <typename V, typename Op>
__device__ __forceinline__ V LanesReduce(V value, int lanes, Op op) {
  for (int step = lanes / 2; step > 0; step /= 2) value = op(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}
template <typename V, typename Op>
__device__ __forceinline__ V WarpReduce(V value, Op op) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value = op(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}
// Over the blockDim.x threads of a row of the block, warps in order; all get the same bits. Every thread of the block
// calls it. `shared` has kWarp elements a row of the block, and is free again when all have returned and met once more.
template <typename V, typename Op>
__device__ __forceinline__ V RowReduce(V value, V* shared, Op op) {
  value = WarpReduce(value, op);
  const int warps = blockDim.x / kWarp;
  if (warps == 1) return value;
  V* mine = shared + threadIdx.y * kWarp;
  if (threadIdx.x % kWarp == 0) mine[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = mine[0];
  for (int warp = 1; warp < warps; ++warp) value = op(value, mine[warp]);
  return value;
}

// --- functions ------------------------------------------------------------------------------------------------------

// 1 / (1 + e^-x); 0 where e^-x overflows. For results that are rounded to bf16 the hardware's own approximations do:
// their relative error is about |x| * 2^-23.
template <typename T>
__device__ float Sigmoid(float x) {
  if constexpr (sizeof(T) == 4) return __frcp_rn(1.0f + expf(-x));
  return __fdividef(1.0f, 1.0f + __expf(-x));
}

}  // namespace shoestring
